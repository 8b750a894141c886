//! Our own codecs of the two messages that carry records.

pub(crate) mod fetch;
pub(crate) mod produce;
pub(crate) mod topic;

#[cfg(test)]
mod tests;
