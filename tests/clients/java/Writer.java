import java.io.IOException;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's own idempotent producer, driven by test_topics.py: {@code Writer BOOTSTRAP TOPIC}.
 *
 * <p>It writes numbers, about 500 a second, with keys that reach every partition, until its standard input ends. It prints
 * {@code sent NUMBER}, {@code acknowledged NUMBER PARTITION OFFSET} and {@code failed NUMBER ERROR}.
 */
public final class Writer {
    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        settings.put("metadata.max.age.ms", "300");
        settings.put("max.block.ms", "1000");
        // What is for a partition that is no longer there is given up only by this.
        settings.put("delivery.timeout.ms", "5000");
        settings.put("request.timeout.ms", "4000");
        var ended = new AtomicBoolean();
        var watcher = new Thread(() -> {
            awaitEnd();
            ended.set(true);
        });
        watcher.setDaemon(true);
        watcher.start();
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int next = 0; !ended.get(); next++) {
                int number = next;
                try {
                    producer.send(new ProducerRecord<>(arguments[1], Integer.toString(number % 50), Integer.toString(number)),
                            (found, error) -> say(error == null
                                    ? "acknowledged " + number + " " + found.partition() + " " + found.offset()
                                    : "failed " + number + " " + error.getClass().getSimpleName()));
                    say("sent " + number);
                } catch (KafkaException refused) {
                    say("failed " + number + " " + refused.getClass().getSimpleName());
                }
                LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(2));
            }
        }
    }

    private static synchronized void say(String line) {
        System.out.println(line);
    }

    private static void awaitEnd() {
        try {
            while (System.in.read() >= 0) {
                // Nobody says anything: it only ends.
            }
        } catch (IOException error) {
            // The test is gone.
        }
    }
}
