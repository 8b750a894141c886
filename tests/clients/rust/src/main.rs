//! Kafka clients of Rust, driven by the tests: see programs.py for what each verb does and prints.
//!
//! `clients LIBRARY VERB BOOTSTRAP TOPIC [ARGUMENT]`

mod rdkafka;
mod rskafka;

use std::io::BufRead;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A record as it stands on a line: key, value, then name and value of each header, each base64 behind a `=`, or `-` for null.
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

fn bytes(word: &str) -> Result<Option<Vec<u8>>> {
    word.strip_prefix('=')
        .map(|text| Ok(STANDARD.decode(text)?))
        .transpose()
}

fn word(bytes: Option<&[u8]>) -> String {
    bytes.map_or("-".to_owned(), |bytes| {
        format!("={}", STANDARD.encode(bytes))
    })
}

impl Record {
    fn read(line: &str) -> Result<Record> {
        let mut words = line.split(' ').map(bytes);
        let mut next = || words.next().ok_or("a line has two words at least")?;
        let (key, value) = (next()?, next()?);
        let mut headers = Vec::new();
        while let Some(name) = words.next() {
            let name = String::from_utf8(name?.ok_or("a header has a name")?)?;
            headers.push((name, words.next().ok_or("a header has a value")??));
        }
        Ok(Record {
            key,
            value,
            headers,
        })
    }

    pub(crate) fn print(&self) {
        let mut words = vec![word(self.key.as_deref()), word(self.value.as_deref())];
        for (name, value) in &self.headers {
            words.extend([word(Some(name.as_bytes())), word(value.as_deref())]);
        }
        println!("{}", words.join(" "));
    }
}

fn records() -> Result<Vec<Record>> {
    std::io::stdin()
        .lock()
        .lines()
        .map(|line| Record::read(&line?))
        .collect()
}

/// When the input ends.
pub(crate) async fn left() {
    let ended =
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let _ = ended.await;
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, verb, bootstrap, topic, rest @ ..] = arguments.as_slice() else {
        return Err("usage: clients LIBRARY VERB BOOTSTRAP TOPIC [ARGUMENT]".into());
    };
    let argument = rest.first().map_or("", String::as_str);
    match (library.as_str(), verb.as_str()) {
        ("rdkafka", "produce") => rdkafka::produce(bootstrap, topic, argument, records()?).await,
        ("rdkafka", "consume") => rdkafka::consume(bootstrap, topic, argument.parse()?).await,
        ("rdkafka", "group") => rdkafka::group(bootstrap, topic, argument).await,
        ("rdkafka", "offsets") => rdkafka::offsets(bootstrap, topic, argument),
        ("rdkafka", "admin") => rdkafka::admin(bootstrap, topic).await,
        ("rdkafka", "refused") => rdkafka::refused(bootstrap, topic).await,
        ("rdkafka", "transactions") => rdkafka::transactions(bootstrap, topic, argument).await,
        ("rdkafka", "start") => rdkafka::start(bootstrap, topic).await,
        ("rskafka", "produce") => rskafka::produce(bootstrap, topic, argument, records()?).await,
        ("rskafka", "consume") => rskafka::consume(bootstrap, topic, argument.parse()?).await,
        ("rskafka", "offsets") => rskafka::offsets(bootstrap, topic).await,
        ("rskafka", "admin") => rskafka::admin(bootstrap, topic).await,
        ("rskafka", "refused") => rskafka::refused(bootstrap, topic).await,
        ("rskafka", "start") => rskafka::start(bootstrap, topic).await,
        (library, verb) => Err(format!("{library} has no {verb}").into()),
    }
}
