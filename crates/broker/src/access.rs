//! Who asks, and the one place where it is decided whether they may.

use std::sync::Arc;

use crate::{BrokerError, names};

/// Who asks: the name space of what they ask for, and the name they go by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    /// The tenant: the name space of topics, handlers, groups and principals.
    pub tenant: Arc<str>,
    /// The principal within the tenant.
    pub principal: Arc<str>,
}

impl Caller {
    /// The tenant that is there without asking.
    pub const DEFAULT_TENANT: &'static str = "default";

    /// A caller of the default tenant that nobody has authenticated.
    pub fn anonymous() -> Caller {
        Caller {
            tenant: Self::DEFAULT_TENANT.into(),
            principal: "anonymous".into(),
        }
    }

    /// A caller of a tenant, after its name was checked.
    pub fn new(tenant: &str, principal: &str) -> Result<Caller, BrokerError> {
        names::check_tenant(tenant)?;
        Ok(Caller {
            tenant: tenant.into(),
            principal: principal.into(),
        })
    }
}

/// What a caller wants to do: the question of the access check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    Create {
        topic: &'a str,
    },
    Alter {
        topic: &'a str,
    },
    Delete {
        topic: &'a str,
    },
    Write {
        topic: &'a str,
    },
    Read {
        topic: &'a str,
    },
    Describe {
        topic: &'a str,
    },
    ProducerId,
    DescribeBroker,
    AlterBroker,
    /// To be the producer of a transactional id.
    WriteTransaction {
        id: &'a str,
    },
    DescribeTransaction {
        id: &'a str,
    },
    /// To be a member of a group, or to commit its offsets.
    ReadGroup {
        group: &'a str,
    },
    DescribeGroup {
        group: &'a str,
    },
    DeleteGroup {
        group: &'a str,
    },
    AlterGroup {
        group: &'a str,
    },
}

/// The access check that every call passes. There are no rules yet beyond the tenant's name space, which the
/// catalogue's keys enforce: whoever is in a tenant may do everything in it, and nothing outside.
pub(crate) fn check(caller: &Caller, access: Access<'_>) -> Result<(), BrokerError> {
    tracing::trace!(tenant = %caller.tenant, principal = %caller.principal, ?access, "access");
    names::check_tenant(&caller.tenant)
}
