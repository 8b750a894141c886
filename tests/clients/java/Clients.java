import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Properties;
import java.util.Scanner;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own client, driven by test_clients.py: {@code Clients produce|consume BOOTSTRAP TOPIC CODEC|COUNT}.
 *
 * <p>A record is a line: key, value, then name and value of each header, base64 with a space in between; null is a dash, and
 * a leading {@code =} stands before every other.
 */
public final class Clients {
    private static final long TIMEOUT_S = 30;

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[1]);
        if (arguments[0].equals("produce")) {
            produce(settings, arguments[2], arguments[3]);
        } else {
            consume(settings, arguments[2], Integer.parseInt(arguments[3]));
        }
    }

    private static byte[] bytes(String word) {
        return word.equals("-") ? null : Base64.getDecoder().decode(word.substring(1));
    }

    private static String word(byte[] bytes) {
        return bytes == null ? "-" : "=" + Base64.getEncoder().encodeToString(bytes);
    }

    private static void produce(Properties settings, String topic, String codec) throws Exception {
        settings.put("compression.type", codec);
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        settings.put("delivery.timeout.ms", "30000");
        settings.put("request.timeout.ms", "20000");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                var lines = new Scanner(System.in)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            while (lines.hasNextLine()) {
                String[] words = lines.nextLine().split(" ");
                var record = new ProducerRecord<>(topic, 0, bytes(words[0]), bytes(words[1]));
                for (int at = 2; at < words.length; at += 2) {
                    record.headers().add(new String(bytes(words[at]), "UTF-8"), bytes(words[at + 1]));
                }
                sent.add(producer.send(record));
            }
            for (var one : sent) {
                one.get(TIMEOUT_S, TimeUnit.SECONDS);
            }
        }
    }

    private static void consume(Properties settings, String topic, int count) throws Exception {
        settings.put("enable.auto.commit", "false");
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            var partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(TIMEOUT_S);
            while (count > 0 && System.nanoTime() < end) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    var words = new ArrayList<>(List.of(word(record.key()), word(record.value())));
                    for (Header header : record.headers()) {
                        words.add(word(header.key().getBytes("UTF-8")));
                        words.add(word(header.value()));
                    }
                    System.out.println(String.join(" ", words));
                    count--;
                }
            }
        }
    }
}
