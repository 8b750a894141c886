//! The features of the cluster (KIP-584): what it could do, and what it has been settled that it does.
//!
//! Nobody can settle them otherwise: there is one node, and what it can do it does.

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};

use crate::metadata::text;

struct Feature {
    name: &'static str,
    /// The lowest and the highest level that is supported; the highest one holds.
    levels: (i16, i16),
}

/// In the order of names.
const FEATURES: &[Feature] = &[
    // 1: groups of the consumer protocol (KIP-848).
    Feature {
        name: "group.version",
        levels: (0, 1),
    },
    // 2: producers have a new epoch after each transaction, and partitions become part of one by being written to (KIP-890).
    Feature {
        name: "transaction.version",
        levels: (0, 2),
    },
];

/// Names them in an answer, which can carry them from version 3 on.
pub(crate) fn tell(response: ApiVersionsResponse, version: i16) -> ApiVersionsResponse {
    if version < 3 {
        return response;
    }
    // Clients of version 3 take a level 0 for an error (KAFKA-17011): Kafka leaves such features out for them.
    let supported = FEATURES
        .iter()
        .filter(|feature| version >= 4 || feature.levels.0 > 0);
    let supported = supported.map(|feature| {
        SupportedFeatureKey::default()
            .with_name(text(feature.name))
            .with_min_version(feature.levels.0)
            .with_max_version(feature.levels.1)
    });
    let finalized = FEATURES.iter().map(|feature| {
        FinalizedFeatureKey::default()
            .with_name(text(feature.name))
            .with_min_version_level(feature.levels.1)
            .with_max_version_level(feature.levels.1)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(0)
        .with_finalized_features(finalized.collect())
}
