//! Where the processes find what they need, and each other.

use std::path::{Path, PathBuf};

use federation_hub::transport::Credentials;

/// How many agents write and sync all the time.
pub const AGENTS: usize = 6;

/// Where everybody keeps their files.
pub struct Place(PathBuf);

impl Place {
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub fn hub_store(&self) -> PathBuf {
        self.0.join("hub.sqlite")
    }

    pub fn database(&self, agent: &str) -> PathBuf {
        self.0.join(format!("{agent}.sqlite"))
    }

    /// Removes an agent's database.
    pub fn forget(&self, agent: &str) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = std::fs::remove_file(self.0.join(format!("{agent}.sqlite{suffix}")));
        }
    }

    /// The numbers of the rows of an agent whose sync was reported to have succeeded, one a line.
    pub fn acknowledged(&self, agent: &str) -> PathBuf {
        self.0.join(format!("{agent}.acknowledged"))
    }

    pub fn credentials(&self) -> Credentials {
        serde_json::from_slice(&std::fs::read(self.0.join("credentials.json")).unwrap()).unwrap()
    }

    pub fn address(&self) -> String {
        std::fs::read_to_string(self.0.join("address")).unwrap()
    }

    /// Makes certificates, and finds a port.
    pub fn prepare(&self) {
        let credentials = Credentials::generate([7; 32]).unwrap();
        std::fs::write(self.0.join("credentials.json"), serde_json::to_vec(&credentials).unwrap()).unwrap();
        // Whoever starts the hub again needs the port that the agents know.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        std::fs::write(self.0.join("address"), socket.local_addr().unwrap().to_string()).unwrap();
    }
}

pub fn agents() -> Vec<String> {
    (0..AGENTS).map(|at| format!("agent-{at}")).collect()
}
