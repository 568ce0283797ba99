//! The floor under a sync, for `npm run bench`: what the network and the disk cost without any of this library.
//!
//! Two processes on loopback, an echoing hub and an agent, with bare quinn between them: TLS 1.3, certificates
//! on both sides, a stream for each echo. The hub can commit a row to a SQLite file before it answers.
//!
//! ```text
//! floor <file>      starts the hub's process itself, with its database in <file>; then reads commands on stdin:
//!   echo <n>        n echoes of 64 bytes, one after the other
//!   commit <n>      n echoes, each answered after a durable commit of one row
//! ```
//!
//! Each command is answered by one line on stdout: n durations in µs, separated by spaces. An empty stdin ends
//! both processes.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use federation_hub::transport::Credentials;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rusqlite::Connection;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What goes there and back.
const PAYLOAD_BYTES: usize = 64;

/// The first byte of an echo that is to be committed.
const COMMIT: u8 = 1;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The same kind of runtime as the library's own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [file] => runtime.block_on(agent(file)),
        ["--hub", file] => runtime.block_on(hub(file)),
        _ => Err("usage: floor <file>".into()),
    }
}

/// The agent's process.
async fn agent(file: &str) -> Outcome<()> {
    let credentials = Credentials::generate([0; 32])?;
    let mut hub = Command::new(std::env::current_exe()?)
        .args(["--hub", file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut to_hub = hub.stdin.take().ok_or("the hub has no stdin")?;
    writeln!(to_hub, "{}", serde_json::to_string(&credentials)?)?;
    let mut address = String::new();
    BufReader::new(hub.stdout.take().ok_or("the hub has no stdout")?).read_line(&mut address)?;
    let connection = connect(address.trim().parse()?, &credentials).await?;
    // Nothing else runs here, so reading a command may block; the connection has no idle timeout.
    for command in std::io::stdin().lock().lines() {
        let command = command?;
        let (kind, count) = command.split_once(' ').ok_or("usage: echo <n> | commit <n>")?;
        let first = if kind == "commit" { COMMIT } else { 0 };
        let mut micros = Vec::new();
        for _ in 0..count.parse::<usize>()? {
            let started = Instant::now();
            echo(&connection, first).await?;
            micros.push(format!("{:.3}", started.elapsed().as_secs_f64() * 1e6));
        }
        println!("{}", micros.join(" "));
    }
    // The hub sees the end of its stdin, and ends as well.
    drop(to_hub);
    hub.wait()?;
    Ok(())
}

async fn echo(connection: &quinn::Connection, first: u8) -> Outcome<()> {
    let mut payload = [0x5a; PAYLOAD_BYTES];
    payload[0] = first;
    let (mut sender, mut receiver) = connection.open_bi().await?;
    sender.write_all(&payload).await?;
    sender.finish()?;
    let answer = receiver.read_to_end(PAYLOAD_BYTES).await?;
    if answer == payload { Ok(()) } else { Err("the echo differs".into()) }
}

async fn connect(hub: SocketAddr, credentials: &Credentials) -> Outcome<quinn::Connection> {
    let (cert, key) = credentials.issue_agent("agent", "floor")?;
    let mut tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots(credentials)?)
        .with_client_auth_cert(vec![certificate(&cert)?], private_key(&key)?)?;
    tls.alpn_protocols = vec![b"floor".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(endpoint.connect_with(config, hub, "localhost")?.await?)
}

/// The hub's process: ends with its stdin.
async fn hub(file: &str) -> Outcome<()> {
    let mut stdin = BufReader::new(std::io::stdin());
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    let credentials: Credentials = serde_json::from_str(&line)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(&credentials)?)).build()?;
    let mut tls = rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(
        vec![certificate(&credentials.hub_cert_pem)?],
        private_key(&credentials.hub_key_pem)?,
    )?;
    tls.alpn_protocols = vec![b"floor".to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
    println!("{}", endpoint.local_addr()?);
    std::thread::spawn(move || {
        let _ = stdin.read_line(&mut String::new());
        std::process::exit(0);
    });
    let store = open_store(file)?;
    let connection = endpoint.accept().await.ok_or("nobody came")?.await?;
    while let Ok((mut sender, mut receiver)) = connection.accept_bi().await {
        let payload = receiver.read_to_end(PAYLOAD_BYTES).await?;
        if payload.first() == Some(&COMMIT) {
            store.prepare_cached("INSERT INTO rows(payload) VALUES (?)")?.execute([&payload])?;
        }
        sender.write_all(&payload).await?;
        sender.finish()?;
    }
    Ok(())
}

/// A database in which each statement is a durable commit of its own.
fn open_store(file: &str) -> Outcome<Connection> {
    let store = Connection::open(file)?;
    store.pragma_update(None, "journal_mode", "WAL")?;
    store.pragma_update(None, "synchronous", "FULL")?;
    store.execute_batch("CREATE TABLE rows(id INTEGER PRIMARY KEY, payload BLOB)")?;
    Ok(store)
}

fn transport() -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    // The agent is silent while the other side of the comparison has its turn.
    transport.max_idle_timeout(None);
    Arc::new(transport)
}

fn roots(credentials: &Credentials) -> Outcome<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&credentials.ca_cert_pem)?)?;
    Ok(roots)
}

fn certificate(pem: &str) -> Outcome<CertificateDer<'static>> {
    Ok(CertificateDer::from_pem_slice(pem.as_bytes())?)
}

fn private_key(pem: &str) -> Outcome<PrivateKeyDer<'static>> {
    Ok(PrivateKeyDer::from_pem_slice(pem.as_bytes())?)
}
