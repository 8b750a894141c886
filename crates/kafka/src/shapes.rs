//! The shapes of the control requests that are served, one a request, in the order of their fields.

use crate::shape::{Shape, blob, fixed, maybe, numbers, structs, text, texts};

pub(crate) const LIST_OFFSETS: Shape = &[
    fixed(4),
    fixed(1).since(2),
    structs(&[text(), structs(&[fixed(4), fixed(4).since(4), fixed(8)])]),
    fixed(4).since(10),
];

pub(crate) const METADATA: Shape = &[
    structs(&[fixed(16).since(10), text()]),
    fixed(1).since(4),
    fixed(1).since(8).until(10),
    fixed(1).since(8),
];

pub(crate) const FIND_COORDINATOR: Shape = &[text().until(3), fixed(1).since(1), texts().since(4)];

pub(crate) const API_VERSIONS: Shape = &[text().since(3), text().since(3)];

pub(crate) const CREATE_TOPICS: Shape = &[
    structs(&[
        text(),
        fixed(4),
        fixed(2),
        structs(&[fixed(4), numbers(4)]),
        structs(&[text(), text()]),
    ]),
    fixed(4),
    fixed(1),
];

pub(crate) const DELETE_TOPICS: Shape = &[
    structs(&[text(), fixed(16)]).since(6),
    texts().until(5),
    fixed(4),
];

pub(crate) const DELETE_RECORDS: Shape =
    &[structs(&[text(), structs(&[fixed(4), fixed(8)])]), fixed(4)];

pub(crate) const INIT_PRODUCER_ID: Shape =
    &[text(), fixed(4), fixed(8).since(3), fixed(2).since(3)];

pub(crate) const ADD_PARTITIONS_TO_TXN: Shape = &[
    structs(&[
        text(),
        fixed(8),
        fixed(2),
        fixed(1),
        structs(&[text(), numbers(4)]),
    ])
    .since(4),
    text().until(3),
    fixed(8).until(3),
    fixed(2).until(3),
    structs(&[text(), numbers(4)]).until(3),
];

pub(crate) const ADD_OFFSETS_TO_TXN: Shape = &[text(), fixed(8), fixed(2), text()];

pub(crate) const END_TXN: Shape = &[text(), fixed(8), fixed(2), fixed(1)];

pub(crate) const TXN_OFFSET_COMMIT: Shape = &[
    text(),
    text(),
    fixed(8),
    fixed(2),
    fixed(4).since(3),
    text().since(3),
    text().since(3),
    structs(&[
        text(),
        structs(&[fixed(4), fixed(8), fixed(4).since(2), text()]),
    ]),
];

pub(crate) const DESCRIBE_PRODUCERS: Shape = &[structs(&[text(), numbers(4)])];

pub(crate) const DESCRIBE_TRANSACTIONS: Shape = &[texts()];

pub(crate) const LIST_TRANSACTIONS: Shape =
    &[texts(), numbers(8), fixed(8).since(1), text().since(2)];

pub(crate) const OFFSET_FOR_LEADER_EPOCH: Shape = &[
    fixed(4).since(3),
    structs(&[text(), structs(&[fixed(4), fixed(4), fixed(4)])]),
];

/// Resource type, name, pattern type, principal, host, operation, permission type.
const ACL: Shape = &[
    fixed(1),
    text(),
    fixed(1),
    text(),
    text(),
    fixed(1),
    fixed(1),
];

pub(crate) const DESCRIBE_ACLS: Shape = ACL;

pub(crate) const CREATE_ACLS: Shape = &[structs(ACL)];

pub(crate) const DELETE_ACLS: Shape = &[structs(ACL)];

pub(crate) const DESCRIBE_CONFIGS: Shape = &[
    structs(&[fixed(1), text(), texts()]),
    fixed(1),
    fixed(1).since(3),
];

pub(crate) const ALTER_CONFIGS: Shape = &[
    structs(&[fixed(1), text(), structs(&[text(), text()])]),
    fixed(1),
];

pub(crate) const DESCRIBE_LOG_DIRS: Shape = &[structs(&[text(), numbers(4)])];

pub(crate) const CREATE_PARTITIONS: Shape = &[
    structs(&[text(), fixed(4), structs(&[numbers(4)])]),
    fixed(4),
    fixed(1),
];

pub(crate) const ELECT_LEADERS: Shape =
    &[fixed(1).since(1), structs(&[text(), numbers(4)]), fixed(4)];

pub(crate) const INCREMENTAL_ALTER_CONFIGS: Shape = &[
    structs(&[fixed(1), text(), structs(&[text(), fixed(1), text()])]),
    fixed(1),
];

pub(crate) const ALTER_PARTITION_REASSIGNMENTS: Shape = &[
    fixed(4),
    fixed(1).since(1),
    structs(&[text(), structs(&[fixed(4), numbers(4)])]),
];

pub(crate) const LIST_PARTITION_REASSIGNMENTS: Shape = &[fixed(4), structs(&[text(), numbers(4)])];

pub(crate) const DESCRIBE_CLUSTER: Shape = &[fixed(1), fixed(1).since(1), fixed(1).since(2)];

pub(crate) const DESCRIBE_TOPIC_PARTITIONS: Shape =
    &[structs(&[text()]), fixed(4), maybe(&[text(), fixed(4)])];

pub(crate) const OFFSET_COMMIT: Shape = &[
    text(),
    fixed(4),
    text(),
    text().since(7),
    fixed(8).until(4),
    structs(&[
        text(),
        structs(&[fixed(4), fixed(8), fixed(4).since(6), text()]),
    ]),
];

pub(crate) const OFFSET_FETCH: Shape = &[
    text().until(7),
    structs(&[text(), numbers(4)]).until(7),
    structs(&[
        text(),
        text().since(9),
        fixed(4).since(9),
        structs(&[text(), numbers(4)]),
    ])
    .since(8),
    fixed(1).since(7),
];

pub(crate) const OFFSET_DELETE: Shape = &[text(), structs(&[text(), structs(&[fixed(4)])])];

pub(crate) const JOIN_GROUP: Shape = &[
    text(),
    fixed(4),
    fixed(4).since(1),
    text(),
    text().since(5),
    text(),
    structs(&[text(), blob()]),
    text().since(8),
];

pub(crate) const SYNC_GROUP: Shape = &[
    text(),
    fixed(4),
    text(),
    text().since(3),
    text().since(5),
    text().since(5),
    structs(&[text(), blob()]),
];

pub(crate) const HEARTBEAT: Shape = &[text(), fixed(4), text(), text().since(3)];

pub(crate) const LEAVE_GROUP: Shape = &[
    text(),
    text().until(2),
    structs(&[text(), text(), text().since(5)]).since(3),
];

pub(crate) const CONSUMER_GROUP_HEARTBEAT: Shape = &[
    text(),
    text(),
    fixed(4),
    text(),
    text(),
    fixed(4),
    texts(),
    text().since(1),
    text(),
    structs(&[fixed(16), numbers(4)]),
];

pub(crate) const CONSUMER_GROUP_DESCRIBE: Shape = &[texts(), fixed(1)];

pub(crate) const LIST_GROUPS: Shape = &[texts().since(4), texts().since(5)];

pub(crate) const DESCRIBE_GROUPS: Shape = &[texts(), fixed(1).since(3)];

pub(crate) const DELETE_GROUPS: Shape = &[texts()];
