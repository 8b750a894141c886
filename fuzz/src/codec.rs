#[path = "../../crates/kafka/src/codec/fetch.rs"]
pub(crate) mod fetch;
#[path = "../../crates/kafka/src/codec/produce.rs"]
pub(crate) mod produce;
#[path = "../../crates/kafka/src/codec/topic.rs"]
pub(crate) mod topic;
