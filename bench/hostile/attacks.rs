//! The attacks.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use federation_hub::model::{Hlc, ReplicaId};
use federation_hub::protocol::limits::MAX_CLOCK_LEAD_MS;
use federation_hub::protocol::message::{Attach, ToAgent, ToHub};
use federation_hub::transport::{Connection, FrameReceiver, FrameSender};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use crate::attacker::Attacker;
use crate::messages::{self, Author};

/// Streams of a connection at once.
const STREAMS: usize = 8;

/// A frame that is never ended is sent in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Replicas that one agent attaches, at most.
const REPLICAS: u64 = 30_000;

/// Replicas that are being attached at once.
const ATTACHING: usize = 8;

/// TCP connections that say nothing.
const IDLE: usize = 16;

/// How often it is asked whether the hub is well.
const ASKED_EVERY: Duration = Duration::from_millis(200);

/// And how long the answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Before a connection that was refused is made again: an attack that does nothing but connect is another one.
const PAUSE: Duration = Duration::from_millis(20);

/// What an attack costs its sender, counted as it is spent: what is under way when time is up counts as well.
#[derive(Debug, Default)]
pub struct Cost {
    bytes: AtomicU64,
    count: AtomicU64,
    refused: AtomicU64,
}

impl Cost {
    fn begin_one(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    fn send(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn refuse_one(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Bytes, messages, and how many of those were refused.
    pub fn told(&self) -> (u64, u64, u64) {
        (self.bytes.load(Relaxed), self.count.load(Relaxed), self.refused.load(Relaxed))
    }
}

/// The attack that a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// None: connected, and silent.
    Nothing,
    DecodedSize,
    Declarations,
    NetworkThread,
    PartialFrames,
    Deriving,
    IdleMetrics,
    Ratchet,
    Replicas,
    Flood,
}

impl Attack {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "nothing" => Self::Nothing,
            "decoded-size" => Self::DecodedSize,
            "declarations" => Self::Declarations,
            "network-thread" => Self::NetworkThread,
            "partial-frames" => Self::PartialFrames,
            "deriving" => Self::Deriving,
            "idle-metrics" => Self::IdleMetrics,
            "ratchet" => Self::Ratchet,
            "replicas" => Self::Replicas,
            "flood" => Self::Flood,
            _ => return None,
        })
    }

    /// On how many connections.
    pub fn connections(self) -> u8 {
        match self {
            Self::DecodedSize | Self::NetworkThread => 6,
            Self::PartialFrames => 7,
            Self::Flood => 8,
            Self::Deriving | Self::Declarations => 2,
            Self::Nothing | Self::IdleMetrics | Self::Ratchet | Self::Replicas => 1,
        }
    }

    /// Attacks on one connection, and another one whenever that is lost.
    pub async fn run(self, mut attacker: Attacker, until: Instant, cost: Arc<Cost>) {
        let mut round = 0;
        while Instant::now() < until {
            let deadline = until.into();
            let Ok(connection) = timeout_at(deadline, attacker.enter()).await else { break };
            let mut siege = Siege { connection: &connection, until, round, cost: &cost };
            // What is under way when time is up is given up.
            let _ = timeout_at(deadline, siege.lay(self, &mut attacker)).await;
            round = siege.round;
            connection.close(0, "enough");
            sleep(PAUSE).await;
        }
    }
}

/// An attack on a connection.
struct Siege<'a> {
    connection: &'a Connection,
    until: Instant,
    /// How often something was sent.
    round: u64,
    cost: &'a Arc<Cost>,
}

impl Siege<'_> {
    /// Until the connection is lost.
    async fn lay(&mut self, attack: Attack, attacker: &mut Attacker) -> Option<()> {
        match attack {
            Attack::Nothing | Attack::IdleMetrics => sleep(self.until - Instant::now()).await,
            Attack::DecodedSize => {
                let frames = messages::frames(&messages::pushing(attacker, messages::empty_values()));
                self.again(&frames).await?;
            }
            Attack::NetworkThread => {
                let frames = messages::frames(&messages::nonsense(attacker));
                self.again(&frames).await?;
            }
            Attack::Declarations => loop {
                let number = u64::from(attacker.replica.0[0]) << 32 | self.round;
                let declaring = messages::declaring(attacker, messages::many_columns(number));
                self.exchange(&messages::frames(&declaring)).await?;
            },
            Attack::PartialFrames => self.hold().await,
            Attack::Deriving => self.derive(attacker).await?,
            Attack::Ratchet => self.ratchet(attacker).await?,
            Attack::Replicas => self.replicas().await?,
            Attack::Flood => {
                let mut dice = fastrand::Rng::with_seed(attacker.replica.0[0].into());
                self.declare(attacker, messages::notes()).await?;
                loop {
                    let from = usize::try_from(self.round % 4_000).ok()? * 250;
                    self.push(attacker, Author::of(attacker).honest(from, &mut dice)).await?;
                }
            }
        }
        Some(())
    }

    /// The same on all streams, again and again.
    async fn again(&mut self, frames: &[Vec<u8>]) -> Option<()> {
        loop {
            let mut streams = JoinSet::new();
            for _ in 0..STREAMS {
                let (connection, frames) = (self.connection.clone(), frames.to_vec());
                let cost = Arc::clone(self.cost);
                streams.spawn(async move { talk(&connection, &frames, &cost).await });
            }
            for answers in streams.join_all().await {
                answers?;
            }
        }
    }

    /// Says something on a stream, and hears the answers; nothing if the connection is lost.
    async fn exchange(&mut self, frames: &[Vec<u8>]) -> Option<Vec<ToAgent>> {
        self.round += 1;
        talk(self.connection, frames, self.cost).await
    }

    async fn declare(
        &mut self,
        attacker: &Attacker,
        schema: Vec<federation_hub::model::TableSchema>,
    ) -> Option<()> {
        let frames = messages::frames(&messages::declaring(attacker, schema));
        self.exchange(&frames).await.map(drop)
    }

    /// Pushes the next batch; again later if the hub says so.
    async fn push(&mut self, attacker: &mut Attacker, body: Vec<u8>) -> Option<()> {
        let frames = messages::frames(&messages::pushing(attacker, body.clone()));
        loop {
            let answers = self.exchange(&frames).await?;
            if answers.iter().any(|it| matches!(it, ToAgent::Ack(_))) {
                let batch = attacker.batch(body);
                attacker.last = (batch.n, batch.digest(attacker.replica));
                return Some(());
            }
        }
    }

    /// Frames that lack their last byte, on all streams.
    async fn hold(&mut self) {
        let frame = bytes::Bytes::from(messages::partial());
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            let (connection, frame, until) = (self.connection.clone(), frame.clone(), self.until);
            let cost = Arc::clone(self.cost);
            streams.spawn(async move {
                cost.begin_one();
                let Ok((mut sender, mut receiver)) = connection.open().await else { return };
                // In pieces, so that what the hub has taken is known.
                for piece in (0..frame.len()).step_by(PIECE_BYTES) {
                    let piece = frame.slice(piece..frame.len().min(piece + PIECE_BYTES));
                    match timeout_at(until.into(), sender.send_encoded(piece)).await {
                        Ok(Ok(bytes)) => cost.send(bytes),
                        _ => break,
                    }
                }
                if timeout_at(until.into(), receiver.next::<ToAgent>()).await.is_ok() {
                    cost.refuse_one();
                }
            });
        }
        streams.join_all().await;
    }

    /// A chain of rows, whose first is deleted and brought back.
    async fn derive(&mut self, attacker: &mut Attacker) -> Option<()> {
        if attacker.last.0 == 0 {
            self.declare(attacker, messages::chained()).await?;
            self.push(attacker, Author::of(attacker).chain()).await?;
        }
        loop {
            for is_delete in [true, false] {
                let mut author = Author::of(attacker);
                author.stamp.hlc.0 += self.round;
                self.push(attacker, author.head(is_delete)).await?;
            }
        }
    }

    /// Stamps as far ahead as they may be, and then one beyond the highest, again and again.
    async fn ratchet(&mut self, attacker: &mut Attacker) -> Option<()> {
        self.declare(attacker, messages::notes()).await?;
        let mut author = Author::of(attacker);
        let mut ms = author.stamp.hlc.ms() + MAX_CLOCK_LEAD_MS - 1_000;
        loop {
            author.stamp.hlc = Hlc::from_ms(i64::try_from(ms).ok()?);
            self.push(attacker, author.one()).await?;
            ms += 1;
        }
    }

    /// Attaches one new replica after the other.
    async fn replicas(&mut self) -> Option<()> {
        while self.round < REPLICAS {
            let mut streams = JoinSet::new();
            for _ in 0..ATTACHING {
                let mut id = [0xee; 16];
                fastrand::fill(&mut id);
                let attach = ToHub::Attach(Attach { replica: ReplicaId(id), cursor: 0, is_new: true });
                let (connection, frames) = (self.connection.clone(), messages::frames(&[attach]));
                let cost = Arc::clone(self.cost);
                streams.spawn(async move { talk(&connection, &frames, &cost).await });
            }
            for answers in streams.join_all().await {
                self.round += 1;
                answers?;
            }
        }
        sleep(self.until - Instant::now()).await;
        Some(())
    }
}

/// Says something on a stream of its own, and hears the answers; nothing if the connection is lost.
async fn talk(connection: &Connection, frames: &[Vec<u8>], cost: &Cost) -> Option<Vec<ToAgent>> {
    cost.begin_one();
    let (mut sender, mut receiver) = connection.open().await.ok()?;
    say(&mut sender, frames, cost).await;
    let answers = hear(&mut receiver).await?;
    if answers.iter().any(|it| matches!(it, ToAgent::Refused(_))) {
        cost.refuse_one();
    }
    Some(answers)
}

async fn say(sender: &mut FrameSender, frames: &[Vec<u8>], cost: &Cost) {
    for frame in frames {
        // A hub that has refused reads no more.
        let Ok(bytes) = sender.send_encoded(frame.clone()).await else { return };
        cost.send(bytes);
    }
    let _ = sender.finish();
}

async fn hear(receiver: &mut FrameReceiver) -> Option<Vec<ToAgent>> {
    let mut answers = Vec::new();
    loop {
        match receiver.next().await {
            Ok(Some(ToAgent::Rows(_) | ToAgent::Tables(_))) => {}
            Ok(Some(answer)) => {
                let is_last = matches!(answer, ToAgent::Refused(_));
                answers.push(answer);
                if is_last {
                    return Some(answers);
                }
            }
            Ok(None) => return Some(answers),
            Err(_) => return None,
        }
    }
}

/// Connections to the hub's metrics that say nothing, made anew as they are closed. The count is of questions whether the hub is
/// well, and those that were not answered within a second are refused ones.
pub fn idle_metrics(address: &str, until: Instant, cost: &Cost) {
    let idle: Vec<_> = (0..IDLE)
        .map(|_| {
            let address = address.to_owned();
            std::thread::spawn(move || {
                while Instant::now() < until {
                    let Ok(mut stream) = TcpStream::connect(&address) else { continue };
                    let left = until.saturating_duration_since(Instant::now());
                    let _ = stream.set_read_timeout(Some(left.max(PAUSE)));
                    let _ = stream.read(&mut [0; 16]);
                }
            })
        })
        .collect();
    while Instant::now() < until {
        cost.begin_one();
        if !matches!(is_well(address), Ok(true)) {
            cost.refuse_one();
        }
        std::thread::sleep(ASKED_EVERY);
    }
    for thread in idle {
        let _ = thread.join();
    }
}

fn is_well(address: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWERED_WITHIN))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
