//! Our own codecs of the two messages that carry records.

pub(crate) mod fetch;
pub(crate) mod produce;

#[cfg(test)]
mod tests;
