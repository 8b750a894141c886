import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Kafka's own client as a member of a group whose partitions the broker assigns (KIP-848), driven by
 * test_assigned_groups.py and test_topics.py: {@code Member BOOTSTRAP TOPIC|^PATTERN GROUP [STATIC NAME]}.
 *
 * <p>It prints each value that it reads, and {@code assigned} with its partitions whenever they change, until its standard input
 * ends.
 */
public final class Member {
    /** It tries again for so long where the topic is not there, and does not poll. */
    private static final Duration COMMIT = Duration.ofSeconds(2);

    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("group.id", arguments[2]);
        settings.put("group.protocol", "consumer");
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("metadata.max.age.ms", "1000");
        if (arguments.length > 3) {
            settings.put("group.instance.id", arguments[3]);
        }
        var ended = new AtomicBoolean();
        var watcher = new Thread(() -> {
            awaitEnd();
            ended.set(true);
        });
        watcher.setDaemon(true);
        watcher.start();
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            if (arguments[1].startsWith("^")) {
                consumer.subscribe(new SubscriptionPattern(arguments[1].substring(1)));
            } else {
                consumer.subscribe(List.of(arguments[1]));
            }
            Set<TopicPartition> assigned = Set.of();
            while (!ended.get()) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    System.out.println(new String(record.value()));
                }
                try {
                    consumer.commitSync(COMMIT);
                } catch (CommitFailedException | TimeoutException error) {
                    // The partitions have moved on meanwhile, or are gone: whoever has them reads again from what was committed.
                }
                if (!consumer.assignment().equals(assigned)) {
                    assigned = Set.copyOf(consumer.assignment());
                    var words = new TreeSet<String>();
                    assigned.forEach(one -> words.add(one.toString()));
                    System.out.println("assigned " + String.join(" ", words));
                }
                System.out.flush();
            }
        }
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
