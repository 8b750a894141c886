use std::borrow::Cow;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::mainstem::handler::state;
use crate::{Context, Error, Result};

/// What can be the key of a table or a record: text and bytes as they are, unsigned numbers big-endian, so that they
/// sort as numbers do.
pub trait Key {
    /// The key's bytes.
    fn to_key(&self) -> Cow<'_, [u8]>;
}

impl Key for str {
    fn to_key(&self) -> Cow<'_, [u8]> {
        self.as_bytes().into()
    }
}

impl Key for String {
    fn to_key(&self) -> Cow<'_, [u8]> {
        self.as_bytes().into()
    }
}

impl Key for [u8] {
    fn to_key(&self) -> Cow<'_, [u8]> {
        self.into()
    }
}

impl Key for Vec<u8> {
    fn to_key(&self) -> Cow<'_, [u8]> {
        self.as_slice().into()
    }
}

impl Key for u32 {
    fn to_key(&self) -> Cow<'_, [u8]> {
        self.to_be_bytes().to_vec().into()
    }
}

impl Key for u64 {
    fn to_key(&self) -> Cow<'_, [u8]> {
        self.to_be_bytes().to_vec().into()
    }
}

impl<K: Key + ?Sized> Key for &K {
    fn to_key(&self) -> Cow<'_, [u8]> {
        (**self).to_key()
    }
}

/// A table of the handler's state with typed values, kept as JSON, so that SQL sees their fields. Each partition has
/// its own; an event reaches the tables of its partition.
pub struct Table<K: ?Sized, V> {
    name: &'static str,
    kind: PhantomData<fn(&K) -> V>,
}

impl<K: Key + ?Sized, V> Table<K, V> {
    /// Names a table; it is there as soon as something is put into it.
    pub const fn new(name: &'static str) -> Table<K, V> {
        Table {
            name,
            kind: PhantomData,
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Removes a key.
    pub fn delete(&self, ctx: &mut Context, key: &K) {
        ctx.delete(self.name, &key.to_key());
    }
}

impl<K: Key + ?Sized, V: DeserializeOwned> Table<K, V> {
    /// The value of a key.
    pub fn get(&self, ctx: &mut Context, key: &K) -> Result<Option<V>> {
        ctx.get(self.name, &key.to_key())
            .map(|value| self.read(&value))
            .transpose()
    }

    /// At most `limit` keys and values at or above `start` and below `end`, in the keys' order.
    pub fn scan(
        &self,
        _ctx: &mut Context,
        start: &K,
        end: Option<&K>,
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, V)>> {
        let end = end.map(|end| end.to_key());
        let found = state::scan(self.name, &start.to_key(), end.as_deref(), limit);
        found
            .into_iter()
            .map(|(key, value)| Ok((key, self.read(&value)?)))
            .collect()
    }

    fn read(&self, value: &[u8]) -> Result<V> {
        serde_json::from_slice(value).map_err(|error| {
            Error::new(format!(
                "table `{}` holds a value of another shape: {error}",
                self.name
            ))
        })
    }
}

impl<K: Key + ?Sized, V: Serialize> Table<K, V> {
    /// Sets a key.
    pub fn put(&self, ctx: &mut Context, key: &K, value: &V) -> Result<()> {
        ctx.put(self.name, &key.to_key(), serde_json::to_vec(value)?);
        Ok(())
    }
}

impl<K: Key + ?Sized, V: Serialize + DeserializeOwned + Default> Table<K, V> {
    /// Reads a value (or its default), changes it, writes it back, and returns it.
    pub fn update(&self, ctx: &mut Context, key: &K, change: impl FnOnce(&mut V)) -> Result<V> {
        let mut value = self.get(ctx, key)?.unwrap_or_default();
        change(&mut value);
        self.put(ctx, key, &value)?;
        Ok(value)
    }
}

/// A table of bytes, for what is not JSON.
pub struct BytesTable(&'static str);

impl BytesTable {
    /// Names a table.
    pub const fn new(name: &'static str) -> BytesTable {
        BytesTable(name)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.0
    }

    /// The value of a key.
    pub fn get(&self, ctx: &mut Context, key: &[u8]) -> Option<Vec<u8>> {
        ctx.get(self.0, key)
    }

    /// Sets a key.
    pub fn put(&self, ctx: &mut Context, key: &[u8], value: impl Into<Vec<u8>>) {
        ctx.put(self.0, key, value.into());
    }

    /// Removes a key.
    pub fn delete(&self, ctx: &mut Context, key: &[u8]) {
        ctx.delete(self.0, key);
    }

    /// At most `limit` keys and values at or above `start` and below `end`, in the keys' order.
    pub fn scan(
        &self,
        _ctx: &mut Context,
        start: &[u8],
        end: Option<&[u8]>,
        limit: u32,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        state::scan(self.0, start, end, limit)
    }
}
