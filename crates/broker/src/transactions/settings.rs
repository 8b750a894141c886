//! The settings of transactions, by Kafka's names and with its defaults.

/// What transactions keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionSettings {
    /// The longest a transaction may stay open, and so the longest timeout a producer may ask for
    /// (`transaction.max.timeout.ms`).
    pub max_timeout_ms: i64,
    /// How long a transactional id without a transaction is remembered (`transactional.id.expiration.ms`).
    pub id_expiration_ms: i64,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        TransactionSettings {
            max_timeout_ms: 15 * 60 * 1_000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1_000,
        }
    }
}
