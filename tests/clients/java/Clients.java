import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Scanner;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own client, driven by the tests: see programs.py for what each verb does and prints.
 *
 * <p>{@code Clients VERB BOOTSTRAP TOPIC [ARGUMENT]}
 */
public final class Clients {
    private static final long TIMEOUT_S = 30;

    private final Properties settings = new Properties();
    private final String topic;

    private Clients(String bootstrap, String topic) {
        settings.put("bootstrap.servers", bootstrap);
        this.topic = topic;
    }

    public static void main(String[] arguments) throws Exception {
        var clients = new Clients(arguments[1], arguments[2]);
        String argument = arguments.length > 3 ? arguments[3] : "";
        switch (arguments[0]) {
            case "produce" -> clients.produce(argument);
            case "consume" -> clients.consume(Integer.parseInt(argument));
            case "group" -> clients.group(argument);
            case "offsets" -> clients.offsets(argument);
            case "admin" -> clients.admin();
            case "refused" -> clients.refused();
            case "transactions" -> clients.transactions(argument);
            case "start" -> clients.start();
            default -> throw new IllegalArgumentException("no verb " + arguments[0]);
        }
    }

    private static byte[] bytes(String word) {
        return word.equals("-") ? null : Base64.getDecoder().decode(word.substring(1));
    }

    private static String word(byte[] bytes) {
        return bytes == null ? "-" : "=" + Base64.getEncoder().encodeToString(bytes);
    }

    private static void say(String step, Object found) {
        System.out.println(step + ": " + found);
    }

    /** Kafka's number of what a call fails with; 0 for none. */
    private static short code(Future<?> call) throws Exception {
        try {
            call.get(TIMEOUT_S, TimeUnit.SECONDS);
            return 0;
        } catch (ExecutionException failed) {
            return Errors.forException(failed.getCause()).code();
        }
    }

    private static <T> T get(KafkaFuture<T> call) throws Exception {
        return call.get(TIMEOUT_S, TimeUnit.SECONDS);
    }

    private KafkaConsumer<byte[], byte[]> consumer() {
        settings.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private void produce(String codec) throws Exception {
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
                    record.headers().add(new String(bytes(words[at]), StandardCharsets.UTF_8), bytes(words[at + 1]));
                }
                sent.add(producer.send(record));
            }
            for (var one : sent) {
                one.get(TIMEOUT_S, TimeUnit.SECONDS);
            }
        }
    }

    private void consume(int count) {
        try (var consumer = consumer()) {
            var partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(TIMEOUT_S);
            while (count > 0 && System.nanoTime() < end) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    var words = new ArrayList<>(List.of(word(record.key()), word(record.value())));
                    for (Header header : record.headers()) {
                        words.add(word(header.key().getBytes(StandardCharsets.UTF_8)));
                        words.add(word(header.value()));
                    }
                    System.out.println(String.join(" ", words));
                    count--;
                }
            }
        }
    }

    private void group(String group) throws Exception {
        settings.put("group.id", group);
        settings.put("auto.offset.reset", "earliest");
        settings.put("session.timeout.ms", "6000");
        settings.put("heartbeat.interval.ms", "500");
        try (var consumer = consumer()) {
            Thread input = new Thread(() -> {
                try (InputStream in = System.in) {
                    in.transferTo(OutputStream.nullOutputStream());
                } catch (Exception ended) {
                    // It has ended, in whichever way.
                }
                consumer.wakeup();
            });
            input.setDaemon(true);
            input.start();
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
                    consumer.commitSync();
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> assigned) {}
            });
            while (true) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofSeconds(1));
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    System.out.println(record.partition() + " " + record.offset());
                }
                if (!records.isEmpty()) {
                    consumer.commitAsync();
                }
            }
        } catch (WakeupException left) {
            // Closing has committed, by the listener, and left the group.
        }
    }

    private void offsets(String group) throws Exception {
        var partition = new TopicPartition(topic, 0);
        try (var admin = Admin.create(settings)) {
            var wanted = Map.of("earliest", OffsetSpec.earliest(), "latest", OffsetSpec.latest(), "at 1004", OffsetSpec.forTimestamp(1004));
            for (var one : wanted.entrySet()) {
                say(one.getKey(), get(admin.listOffsets(Map.of(partition, one.getValue())).partitionResult(partition)).offset());
            }
            settings.put("group.id", group);
            try (var consumer = consumer()) {
                consumer.assign(List.of(partition));
                consumer.commitSync(Map.of(partition, new OffsetAndMetadata(7, "note")));
            }
            OffsetAndMetadata found = get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(partition);
            say("committed", found.offset() + " " + found.metadata());
        }
    }

    private void admin() throws Exception {
        try (var admin = Admin.create(settings)) {
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            say("create", create(admin, topic, 1, Map.of("retention.ms", "60000")));
            say("create again", create(admin, topic, 1, Map.of()));
            say("create a bad name", create(admin, "a b", 1, Map.of()));
            say("create with 3 replicas", create(admin, topic + "-3", 3, Map.of()));
            say("create with an unknown config", create(admin, topic + "-c", 1, Map.of("no.such", "1")));
            say("partitions", partitions(admin));
            get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
            say("partitions", partitions(admin));
            say("fewer partitions", code(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all()));
            var set = new AlterConfigOp(new ConfigEntry("retention.ms", "70000"), AlterConfigOp.OpType.SET);
            get(admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all());
            say("retention.ms", get(admin.describeConfigs(List.of(resource)).all()).get(resource).get("retention.ms").value());
            say("delete", code(admin.deleteTopics(List.of(topic)).all()));
            say("delete again", code(admin.deleteTopics(List.of(topic)).all()));
        }
    }

    private static short create(Admin admin, String name, int replication, Map<String, String> configs) throws Exception {
        return code(admin.createTopics(List.of(new NewTopic(name, 3, (short) replication).configs(configs))).all());
    }

    private int partitions(Admin admin) throws Exception {
        return get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size();
    }

    private void refused() throws Exception {
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            say("too large", code(producer.send(new ProducerRecord<>(topic, new byte[5000]))));
        }
        settings.put("auto.offset.reset", "none");
        try (var consumer = consumer()) {
            var partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, 1000);
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(TIMEOUT_S);
            while (System.nanoTime() < end) {
                consumer.poll(Duration.ofSeconds(1));
            }
        } catch (OffsetOutOfRangeException refused) {
            say("out of range", Errors.OFFSET_OUT_OF_RANGE.code());
        }
    }

    private void transactions(String group) throws Exception {
        String output = topic + "-out";
        try (var producer = producer(output)) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(record(output, "kept")).get();
            producer.commitTransaction();
            producer.beginTransaction();
            producer.send(record(output, "dropped")).get();
            producer.abortTransaction();
            settings.put("group.id", group);
            settings.put("auto.offset.reset", "earliest");
            settings.put("isolation.level", "read_committed");
            try (var consumer = consumer()) {
                consumer.subscribe(List.of(topic));
                for (int copied = 0; copied < 10; ) {
                    ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofSeconds(1));
                    if (records.isEmpty()) {
                        continue;
                    }
                    producer.beginTransaction();
                    for (ConsumerRecord<byte[], byte[]> found : records) {
                        producer.send(new ProducerRecord<>(output, found.value()));
                    }
                    copied += records.count();
                    producer.sendOffsetsToTransaction(
                            Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(copied)), consumer.groupMetadata());
                    producer.commitTransaction();
                }
            }
            producer.beginTransaction();
            producer.send(record(output, "fenced")).get();
            try (var successor = producer(output)) {
                successor.initTransactions();
                try {
                    producer.commitTransaction();
                    say("fenced", 0);
                } catch (ApiException fenced) {
                    say("fenced", Errors.forException(fenced).code());
                }
                successor.beginTransaction();
                successor.send(record(output, "successor")).get();
                successor.commitTransaction();
            }
        }
        var found = new ArrayList<String>();
        try (var consumer = consumer()) {
            var partition = new TopicPartition(output, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            while (found.isEmpty() || !found.get(found.size() - 1).equals("successor")) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    found.add(new String(record.value(), StandardCharsets.UTF_8));
                }
            }
        }
        say("read", String.join(" ", found));
        try (var admin = Admin.create(settings)) {
            say("state", get(admin.describeTransactions(List.of(output)).description(output)).state());
        }
    }

    private KafkaProducer<byte[], byte[]> producer(String transactionalId) {
        settings.put("transactional.id", transactionalId);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, String value) {
        return new ProducerRecord<>(topic, value.getBytes(StandardCharsets.UTF_8));
    }

    /** The examples of KafkaProducer's and KafkaConsumer's documentation. */
    private void start() {
        Properties props = new Properties();
        props.put("bootstrap.servers", settings.get("bootstrap.servers"));
        props.put("linger.ms", 1);
        props.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        props.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        Producer<String, String> producer = new KafkaProducer<>(props);
        for (int i = 0; i < 100; i++) {
            producer.send(new ProducerRecord<String, String>(topic, Integer.toString(i), Integer.toString(i)));
        }
        producer.close();

        props = new Properties();
        props.put("bootstrap.servers", settings.get("bootstrap.servers"));
        props.setProperty("group.id", "test");
        props.setProperty("auto.offset.reset", "earliest");
        props.setProperty("enable.auto.commit", "true");
        props.setProperty("auto.commit.interval.ms", "1000");
        props.setProperty("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        props.setProperty("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(props);
        consumer.subscribe(Arrays.asList(topic));
        Map<String, String> found = new HashMap<>();
        while (found.size() < 100) {
            ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
            for (ConsumerRecord<String, String> record : records) {
                found.put(record.key(), record.value());
            }
        }
        consumer.close();
        System.out.println(found.get("99"));
    }
}
