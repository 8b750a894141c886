//! Errors of the house as Kafka's error codes: the one place where they are chosen.
//!
//! A code also says to a client whether it may try again, so the choice follows what `BrokerError::is_retriable` says
//! where Kafka has no code of that meaning. Source: `org.apache.kafka.common.protocol.Errors`.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use mainstem::broker::BrokerError;
use mainstem_record::RecordError;

/// Why one thing of a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: ResponseError,
    /// What was wrong and what to do about it, where the answer has a place for it.
    pub(crate) message: String,
    /// What was wrong with single records of a batch, by their position in it (KIP-467).
    pub(crate) records: Vec<(i32, String)>,
}

impl Refusal {
    pub(crate) fn new(error: ResponseError, message: impl Into<String>) -> Refusal {
        Refusal {
            error,
            message: message.into(),
            records: Vec::new(),
        }
    }

    pub(crate) fn code(&self) -> i16 {
        self.error.code()
    }

    /// The message as an answer's nullable field has it.
    pub(crate) fn text(&self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message.clone()))
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Refusal {
        let message = match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        };
        Refusal {
            records: error.of_records(),
            ..Refusal::new(of_broker(&error), message)
        }
    }
}

/// The code where a producer speaks to the coordinator of its transactions, in versions of which `knows_fenced` says
/// whether they have a code of its own for a producer that is fenced, and `knows_abortable` whether they have
/// TRANSACTION_ABORTABLE (KIP-890).
///
/// What passes by itself is answered with codes upon which every client asks again; few do so upon those that are meant for
/// partitions.
pub(crate) fn of_coordinator(
    error: &BrokerError,
    knows_fenced: bool,
    knows_abortable: bool,
) -> ResponseError {
    match error {
        BrokerError::ProducerFenced { .. } if knows_fenced => ResponseError::ProducerFenced,
        BrokerError::NotInTransaction { .. } | BrokerError::TransactionTooLarge { .. }
            if !knows_abortable =>
        {
            ResponseError::InvalidTxnState
        }
        BrokerError::Contended { .. } => ResponseError::ConcurrentTransactions,
        BrokerError::DiskFull { .. } | BrokerError::WritesStopped { .. } => {
            ResponseError::CoordinatorNotAvailable
        }
        BrokerError::Closed => ResponseError::NotCoordinator,
        other => of_broker(other),
    }
}

/// The code for what the broker refuses or fails at.
pub(crate) fn of_broker(error: &BrokerError) -> ResponseError {
    match error {
        BrokerError::TopicNotFound { .. } | BrokerError::PartitionNotFound { .. } => {
            ResponseError::UnknownTopicOrPartition
        }
        BrokerError::TopicIdNotFound { .. } => ResponseError::UnknownTopicId,
        BrokerError::TopicExists { .. } => ResponseError::TopicAlreadyExists,
        BrokerError::InvalidTopicName { .. }
        | BrokerError::TopicCollides { .. }
        | BrokerError::InternalTopic { .. } => ResponseError::InvalidTopicException,
        BrokerError::InvalidTenant { .. } | BrokerError::NotDynamic { .. } => {
            ResponseError::InvalidRequest
        }
        BrokerError::InvalidPartitions { .. } => ResponseError::InvalidPartitions,
        BrokerError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        BrokerError::UnknownConfig { .. }
        | BrokerError::InvalidConfig { .. }
        | BrokerError::RefusedConfig { .. } => ResponseError::InvalidConfig,
        BrokerError::RecordTooLarge { .. }
        | BrokerError::RequestTooLarge { .. }
        | BrokerError::TooMuchDecompressed { .. } => ResponseError::MessageTooLarge,
        BrokerError::InvalidBatch { .. } | BrokerError::KeyRequired { .. } => {
            ResponseError::InvalidRecord
        }
        BrokerError::InvalidTimestamp { .. } => ResponseError::InvalidTimestamp,
        BrokerError::NotDeleted { .. } => ResponseError::PolicyViolation,
        BrokerError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        BrokerError::DuplicateSequence { .. } => ResponseError::DuplicateSequenceNumber,
        BrokerError::ProducerFenced { .. } => ResponseError::InvalidProducerEpoch,
        BrokerError::InvalidGroup { .. } => ResponseError::InvalidGroupId,
        BrokerError::GroupNotFound { .. } => ResponseError::GroupIdNotFound,
        BrokerError::GroupNotEmpty { .. } => ResponseError::NonEmptyGroup,
        BrokerError::GroupFull { .. } => ResponseError::GroupMaxSizeReached,
        BrokerError::GroupSubscribed { .. } => ResponseError::GroupSubscribedToTopic,
        BrokerError::UnknownMember { .. } => ResponseError::UnknownMemberId,
        BrokerError::IllegalGeneration { .. } => ResponseError::IllegalGeneration,
        BrokerError::RebalanceInProgress { .. } => ResponseError::RebalanceInProgress,
        BrokerError::InconsistentProtocol { .. } => ResponseError::InconsistentGroupProtocol,
        BrokerError::InvalidSessionTimeout { .. } => ResponseError::InvalidSessionTimeout,
        BrokerError::MemberIdRequired { .. } => ResponseError::MemberIdRequired,
        BrokerError::FencedInstance { .. } => ResponseError::FencedInstanceId,
        BrokerError::UnreleasedInstance { .. } => ResponseError::UnreleasedInstanceId,
        BrokerError::FencedEpoch { .. } => ResponseError::FencedMemberEpoch,
        BrokerError::StaleEpoch { .. } => ResponseError::StaleMemberEpoch,
        BrokerError::EpochsRequired { .. } => ResponseError::UnsupportedVersion,
        BrokerError::OtherProtocol { .. } => ResponseError::GroupIdNotFound,
        BrokerError::UnsupportedAssignor { .. } => ResponseError::UnsupportedAssignor,
        BrokerError::InvalidPattern { .. } => ResponseError::InvalidRegularExpression,
        BrokerError::InvalidHeartbeat { .. } => ResponseError::InvalidRequest,
        BrokerError::OffsetMetadataTooLarge { .. } => ResponseError::OffsetMetadataTooLarge,
        BrokerError::InvalidCommitOffset { .. } => ResponseError::InvalidCommitOffsetSize,
        BrokerError::InvalidTransactionalId { .. } => ResponseError::InvalidRequest,
        BrokerError::TransactionalIdNotFound { .. } => ResponseError::TransactionalIdNotFound,
        BrokerError::InvalidTransactionTimeout { .. } => ResponseError::InvalidTransactionTimeout,
        BrokerError::InvalidProducerMapping { .. } => ResponseError::InvalidProducerIdMapping,
        BrokerError::InvalidTransactionState { .. } | BrokerError::OutsideTransaction { .. } => {
            ResponseError::InvalidTxnState
        }
        BrokerError::ConcurrentTransactions { .. } => ResponseError::ConcurrentTransactions,
        BrokerError::NotInTransaction { .. } | BrokerError::TransactionTooLarge { .. } => {
            ResponseError::TransactionAbortable
        }
        BrokerError::NotAttempted => ResponseError::OperationNotAttempted,
        // Kafka's clients try these again.
        BrokerError::Contended { .. } => ResponseError::RequestTimedOut,
        BrokerError::DiskFull { .. } | BrokerError::WritesStopped { .. } => {
            ResponseError::KafkaStorageError
        }
        BrokerError::Closed => ResponseError::NotLeaderOrFollower,
        BrokerError::DamagedCatalog { .. } | BrokerError::Engine(_) => {
            ResponseError::UnknownServerError
        }
    }
}

impl From<RecordError> for Refusal {
    /// The code for a batch that is not one.
    fn from(error: RecordError) -> Refusal {
        let code = match error {
            // Clients send it again, as it was meant to be.
            RecordError::CrcMismatch { .. }
            | RecordError::Truncated { .. }
            | RecordError::Decompress { .. } => ResponseError::CorruptMessage,
            RecordError::BadMagic { .. } => ResponseError::UnsupportedForMessageFormat,
            RecordError::UnknownCompression { .. } => ResponseError::UnsupportedCompressionType,
            RecordError::DecompressedTooLarge { .. } => ResponseError::MessageTooLarge,
            _ => ResponseError::InvalidRecord,
        };
        Refusal::new(code, error.to_string())
    }
}
