//! A store in a process of its own, so that its crash can be a real one: kill -9. Closing a store may flush it.
//!
//! The child is this test's own binary, told by an environment variable what it is. Requests and answers go through its
//! pipes: a length, then bytes; lists of keys and values travel as store operations.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use mainstem_store::{
    Applied, Family, RocksStore, Store, StoreError, StoreOp, StoreOptions, StoreSnapshot,
    StoreStats, Visit,
};
use parking_lot::Mutex;

/// Holds the directory of the store; whoever finds it set is the child.
const ROLE: &str = "MAINSTEM_STORE_CHILD";
/// The test that the child runs.
const ENTRY: &str = "child_process";
/// What the child says before it opens the store, and after; the test harness's own words come before.
const OPENING: &[u8] = b"<<opening>>";
const READY: &[u8] = b"<<ready>>";

/// The view that is the store itself.
const NEWEST: u32 = 0;

#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Write,
    Flush,
    Snapshot,
    Release,
    Applied,
    GetMany,
    Scan,
}

const KINDS: [Kind; 7] = [
    Kind::Write,
    Kind::Flush,
    Kind::Snapshot,
    Kind::Release,
    Kind::Applied,
    Kind::GetMany,
    Kind::Scan,
];

/// The least there is, so that the store flushes on its own.
pub fn options() -> StoreOptions {
    StoreOptions {
        memory_bytes: 8 << 20,
        ..StoreOptions::default()
    }
}

// ---- The parent's side.

/// A child with a store. It is killed when this goes.
pub struct Process {
    pub child: Child,
    pub requests: ChildStdin,
    pub answers: ChildStdout,
}

impl Process {
    /// Starts a child that is about to open the store in `dir`.
    pub fn start(dir: &Path) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ENTRY, "--ignored", "--nocapture"])
            .env(ROLE, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (requests, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut process = Process {
            child,
            requests,
            answers,
        };
        process.hear(OPENING);
        process
    }

    /// Starts a child and waits until its store is open.
    pub fn open(dir: &Path) -> Process {
        let mut process = Process::start(dir);
        process.hear(READY);
        process
    }

    fn hear(&mut self, wanted: &[u8]) {
        let mut heard = Vec::new();
        while !heard.ends_with(wanted) {
            let mut byte = [0];
            self.answers
                .read_exact(&mut byte)
                .unwrap_or_else(|_| panic!("the child ended: {}", String::from_utf8_lossy(&heard)));
            heard.push(byte[0]);
        }
    }

    /// Kill -9, now. Its answers up to then can still be read.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The store of a child.
#[derive(Clone)]
pub struct ChildStore {
    process: Arc<Mutex<Process>>,
}

impl ChildStore {
    pub fn open(dir: &Path) -> ChildStore {
        ChildStore {
            process: Arc::new(Mutex::new(Process::open(dir))),
        }
    }

    pub fn process(&self) -> &Mutex<Process> {
        &self.process
    }

    fn ask(&self, request: &[u8]) -> Result<Bytes, StoreError> {
        let mut process = self.process.lock();
        send(&mut process.requests, request).unwrap();
        read_answer(&receive(&mut process.answers).expect("the child answers"))
    }

    fn newest(&self) -> View {
        View {
            store: self.clone(),
            number: NEWEST,
        }
    }
}

/// What asks the child to write.
pub fn write_request(ops: &[StoreOp], applied: Applied) -> Vec<u8> {
    let mut request = vec![Kind::Write as u8];
    request.extend_from_slice(&applied.journal_id.to_le_bytes());
    request.extend_from_slice(&applied.lsn.to_le_bytes());
    ops.iter().for_each(|op| op.encode(&mut request));
    request
}

/// What asks it to flush.
pub fn flush_request() -> Vec<u8> {
    vec![Kind::Flush as u8]
}

impl Store for ChildStore {
    fn write(&self, ops: &[StoreOp], applied: Applied) -> Result<(), StoreError> {
        self.ask(&write_request(ops, applied)).map(drop)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.ask(&flush_request()).map(drop)
    }

    fn snapshot(&self) -> Result<Arc<dyn StoreSnapshot>, StoreError> {
        let mut answer = Parts(self.ask(&[Kind::Snapshot as u8])?);
        let (store, number) = (self.clone(), answer.u32());
        Ok(Arc::new(View { store, number }))
    }

    fn stats(&self) -> StoreStats {
        unimplemented!("nobody asks for the figures of a child")
    }
}

impl StoreSnapshot for ChildStore {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        self.newest().applied()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.newest().get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.newest().get_many(family, keys)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        self.newest().scan(family, from, to, visit)
    }
}

/// A snapshot that a child holds, or its store.
struct View {
    store: ChildStore,
    number: u32,
}

impl View {
    fn ask(&self, kind: Kind, rest: &[StoreOp]) -> Result<Bytes, StoreError> {
        let mut request = vec![kind as u8];
        request.extend_from_slice(&self.number.to_le_bytes());
        rest.iter().for_each(|op| op.encode(&mut request));
        self.store.ask(&request)
    }
}

impl StoreSnapshot for View {
    fn applied(&self) -> Result<Option<Applied>, StoreError> {
        let mut answer = Parts(self.ask(Kind::Applied, &[])?);
        Ok((!answer.0.is_empty()).then(|| answer.applied()))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.get_many(family, &[key])?.remove(0))
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let keys: Vec<StoreOp> = keys
            .iter()
            .map(|key| StoreOp::delete(family, key.to_vec()))
            .collect();
        let found = ops(&self.ask(Kind::GetMany, &keys)?);
        Ok(found.into_iter().map(|op| op.value).collect())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let bounds = StoreOp {
            family,
            key: Bytes::copy_from_slice(from),
            value: to.map(Bytes::copy_from_slice),
        };
        for op in ops(&self.ask(Kind::Scan, &[bounds])?) {
            if visit(&op.key, &op.value.unwrap()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.number == NEWEST {
            return;
        }
        // The child may be dead.
        let mut request = vec![Kind::Release as u8];
        request.extend_from_slice(&self.number.to_le_bytes());
        let mut process = self.store.process.lock();
        if send(&mut process.requests, &request).is_ok() {
            let _ = receive(&mut process.answers);
        }
    }
}

// ---- The child's side.

/// Serves the store if this process is a child, until its parent is gone or kills it.
pub fn serve() {
    let Some(dir) = std::env::var_os(ROLE) else {
        return;
    };
    let (mut requests, mut answers) = (io::stdin().lock(), io::stdout().lock());
    answers.write_all(OPENING).unwrap();
    answers.flush().unwrap();
    let store = RocksStore::open(Path::new(&dir), options()).unwrap();
    answers.write_all(READY).unwrap();
    answers.flush().unwrap();
    let mut views: Vec<Option<Arc<dyn StoreSnapshot>>> = vec![Some(Arc::new(store.clone()))];
    while let Some(request) = receive(&mut requests) {
        let outcome = answer(&store, &mut views, Parts(request));
        send(&mut answers, &write_answer(outcome)).unwrap();
    }
    // Nothing is closed: a parent that is gone has not asked for that.
    std::process::exit(0);
}

fn answer(
    store: &RocksStore,
    views: &mut Vec<Option<Arc<dyn StoreSnapshot>>>,
    mut request: Parts,
) -> Result<Vec<u8>, StoreError> {
    let kind = KINDS[request.take::<1>()[0] as usize];
    match kind {
        Kind::Write => {
            let applied = request.applied();
            return store.write(&ops(&request.0), applied).map(|()| Vec::new());
        }
        Kind::Flush => return store.flush().map(|()| Vec::new()),
        Kind::Snapshot => {
            views.push(Some(store.snapshot()?));
            return Ok((views.len() as u32 - 1).to_le_bytes().to_vec());
        }
        Kind::Release | Kind::Applied | Kind::GetMany | Kind::Scan => {}
    }
    let number = request.u32() as usize;
    let view = views[number].clone().unwrap();
    let asked = ops(&request.0);
    let mut out = Vec::new();
    match kind {
        Kind::Release => views[number] = None,
        Kind::Applied => {
            if let Some(applied) = view.applied()? {
                out.extend_from_slice(&applied.journal_id.to_le_bytes());
                out.extend_from_slice(&applied.lsn.to_le_bytes());
            }
        }
        Kind::GetMany => {
            let keys: Vec<&[u8]> = asked.iter().map(|op| &op.key[..]).collect();
            let family = asked.first().map_or(Family::State, |op| op.family);
            let values = view.get_many(family, &keys)?;
            for (op, value) in asked.into_iter().zip(values) {
                StoreOp { value, ..op }.encode(&mut out);
            }
        }
        _ => {
            let StoreOp { family, key, value } = &asked[0];
            view.scan(*family, key, value.as_deref(), &mut |key, value| {
                StoreOp::put(*family, key.to_vec(), value.to_vec()).encode(&mut out);
                ControlFlow::Continue(())
            })?;
        }
    }
    Ok(out)
}

// ---- What both speak.

fn ops(bytes: &Bytes) -> Vec<StoreOp> {
    StoreOp::decode_all(bytes).map(Result::unwrap).collect()
}

fn write_answer(outcome: Result<Vec<u8>, StoreError>) -> Vec<u8> {
    let (mut out, rest) = match outcome {
        Ok(answer) => (vec![0], answer),
        Err(StoreError::OutOfOrder {
            journal_id,
            lsn,
            applied,
        }) => {
            let mut out = vec![1];
            out.extend_from_slice(&journal_id.to_le_bytes());
            out.extend_from_slice(&lsn.to_le_bytes());
            (out, applied.into_bytes())
        }
        Err(other) => (vec![2], other.to_string().into_bytes()),
    };
    out.extend_from_slice(&rest);
    out
}

/// What an answer says.
pub fn read_answer(answer: &Bytes) -> Result<Bytes, StoreError> {
    let mut parts = Parts(answer.clone());
    match parts.take::<1>()[0] {
        0 => Ok(parts.0),
        1 => {
            let Applied { journal_id, lsn } = parts.applied();
            Err(StoreError::OutOfOrder {
                journal_id,
                lsn,
                applied: String::from_utf8(parts.0.to_vec()).unwrap(),
            })
        }
        _ => panic!("the child: {}", String::from_utf8_lossy(&parts.0)),
    }
}

pub fn send(to: &mut impl Write, body: &[u8]) -> io::Result<()> {
    to.write_all(&(body.len() as u32).to_le_bytes())?;
    to.write_all(body)?;
    to.flush()
}

/// The next message; none where the other side is gone, also in the middle of one.
pub fn receive(from: &mut impl Read) -> Option<Bytes> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut body).ok()?;
    Some(body.into())
}

struct Parts(Bytes);

impl Parts {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        self.0.split_to(N)[..].try_into().unwrap()
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn applied(&mut self) -> Applied {
        Applied {
            journal_id: u128::from_le_bytes(self.take()),
            lsn: u64::from_le_bytes(self.take()),
        }
    }
}
