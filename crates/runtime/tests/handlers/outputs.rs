//! What a topic wants of batches, a handler's outputs are as well.

use std::sync::Arc;

use mainstem_broker::{FetchRequest, Isolation, NewTopic, TopicChange};
use mainstem_record::{Batch, Compression};
use mainstem_runtime::{Code, Deployment, NativeHandler};

use crate::support::{Bed, caller, obey};

/// The codecs of the batches of `out`, in their order.
fn codecs(bed: &Bed) -> Vec<Compression> {
    let mut found = Vec::new();
    let mut request = FetchRequest {
        topic: "out".into(),
        partition: 0,
        offset: 0,
        max_bytes: 1 << 20,
        isolation: Isolation::ReadUncommitted,
    };
    loop {
        let fetched = bed.broker.fetch(&caller(), &request).unwrap();
        if fetched.batches.is_empty() {
            return found;
        }
        request.offset = fetched.next_offset;
        for mut piece in fetched.batches {
            while let Some(batch) = Batch::split_first(&mut piece).unwrap() {
                found.push(batch.header().compression());
            }
        }
    }
}

#[test]
fn they_have_the_codec_of_their_topic_from_its_change_on() {
    let mut bed = Bed::new(3);
    bed.topic("in", 1);
    let (broker, now_ms) = (bed.broker.clone(), bed.now_ms);
    let out = NewTopic::named("out").config("compression.type", "zstd");
    bed.block_on(broker.create_topic(&caller(), out, now_ms))
        .unwrap();
    let module = Arc::new(NativeHandler::new(obey));
    let code = Code::Native {
        version: "1".into(),
        module,
    };
    bed.deploy(Deployment::new("counter", code).input("in").output("out"));
    bed.produce("in", &[("a", "count")]);
    bed.settle();
    assert_eq!(codecs(&bed), [Compression::Zstd]);
    let change = TopicChange {
        set: [("compression.type".to_owned(), Some("gzip".to_owned()))].into(),
        ..TopicChange::default()
    };
    bed.block_on(broker.alter_topic(&caller(), "out", change))
        .unwrap();
    bed.produce("in", &[("b", "count")]);
    bed.settle();
    assert_eq!(codecs(&bed), [Compression::Zstd, Compression::Gzip]);
    let keys: Vec<String> = bed.values("out").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "b"]);
}
