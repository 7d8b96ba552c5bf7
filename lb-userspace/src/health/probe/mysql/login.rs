//! From the server's greeting to its OK: Protocol::HandshakeV10, HandshakeResponse41, and what the
//! authentication plugins exchange.

use crate::health::outcome::{Failure, FailureKind};
use crate::health::probe::secret::Password;

use super::packet::{Cursor, Packets, Refusal, ServerError, garbage};
use super::scramble;

/// What this client can do: long passwords, the protocol of 4.1, transactions, 20 bytes of nonce,
/// authentication plugins. Result sets end with EOF, no file of this node is ever read
/// (CLIENT_LOCAL_FILES is not among them).
const CAPABILITIES: u32 =
    LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 1 << 9;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;

/// utf8mb4_general_ci, known to MySQL and MariaDB alike.
const CHARSET: u8 = 45;

/// Packets that a server may send between greeting and OK; the longest way has five.
const ROUNDS_MAX: usize = 8;

/// Length of a nonce. The servers send 21 bytes, of which the last is 0. Unit: bytes.
const NONCE_BYTES: usize = 20;

/// Reads what the server says first.
///
/// # Errors
/// [`FailureKind::Access`] with the server's words if it refuses before any password was sent (too many
/// connections, host blocked).
pub(super) async fn greeting(packets: &mut Packets) -> Result<Greeting, Failure> {
    let payload = packets.expect("waiting for the greeting").await;
    Greeting::parse(&payload.map_err(refused)?)
}

/// Signs in.
///
/// # Errors
/// [`FailureKind::Access`] with the server's words if it refuses.
pub(super) async fn sign_in(
    packets: &mut Packets,
    greeting: &Greeting,
    user: &str,
    password: Option<&Password>,
) -> Result<(), Failure> {
    let mut proof = Proof {
        plugin: greeting.plugin.clone(),
        nonce: greeting.nonce.clone(),
        password: password.map_or(&[], Password::as_bytes),
    };
    let response = response(user, &proof, greeting.capabilities)?;
    packets.write(&response, "signing in").await?;
    for _ in 0..ROUNDS_MAX {
        let payload = packets.expect("signing in").await.map_err(refused)?;
        match proof.answer(&payload)? {
            Answer::SignedIn => return Ok(()),
            Answer::Wait => {}
            Answer::Send(answer) => packets.write(&answer, "signing in").await?,
            Answer::GiveUp(failure) => {
                give_up(packets).await?;
                return Err(failure);
            }
        }
    }
    Err(garbage(format!(
        "signing in: no end after {ROUNDS_MAX} packets"
    )))
}

/// Lets the server refuse an empty proof: a connection that ends in the middle of signing in counts
/// towards `max_connect_errors`, and a refused one does not.
async fn give_up(packets: &mut Packets) -> Result<(), Failure> {
    packets.write(&[], "signing in").await?;
    packets.read("signing in").await.map(drop)
}

/// What the server refuses before its OK is a matter of access, unless it is about to leave.
fn refused(refusal: Refusal) -> Failure {
    /// ER_SERVER_SHUTDOWN, ER_NORMAL_SHUTDOWN.
    const LEAVING: [u16; 2] = [1053, 1077];
    match refusal {
        Refusal::Broken(failure) => failure,
        Refusal::Words(ServerError { code, words }) => {
            let kind = if LEAVING.contains(&code) {
                FailureKind::Unexpected
            } else {
                FailureKind::Access
            };
            Failure::new(kind, format!("the server refuses: error {code}: {words}"))
        }
    }
}

/// What the server says first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// Such as `8.0.36`, or `5.5.5-10.11.6-MariaDB-log`.
    pub(super) version: String,
    capabilities: u32,
    nonce: Vec<u8>,
    plugin: Plugin,
}

impl Greeting {
    fn parse(payload: &[u8]) -> Result<Self, Failure> {
        if payload.first() != Some(&10) {
            return Err(garbage("the greeting is not of MySQL's protocol 10"));
        }
        let greeting = Self::fields(payload)
            .ok_or_else(|| garbage("the greeting ends too early: this is no MySQL server"))?;
        if greeting.capabilities & PROTOCOL_41 == 0 || greeting.nonce.len() != NONCE_BYTES {
            return Err(garbage("the server is older than MySQL 4.1"));
        }
        Ok(greeting)
    }

    fn fields(payload: &[u8]) -> Option<Self> {
        let mut at = Cursor::of(payload);
        at.u8()?;
        let version = String::from_utf8_lossy(at.until_nul()?).into_owned();
        let _thread = at.bytes(4)?;
        let nonce_begin = at.bytes(8)?;
        let _filler = at.u8()?;
        let low = at.u16()?;
        let _charset_and_status = at.bytes(3)?;
        let high = at.u16()?;
        let capabilities = u32::from(low) | u32::from(high) << 16;
        let nonce_length = usize::from(at.u8()?);
        let _reserved = at.bytes(10)?;
        let nonce_rest = at.bytes(nonce_length.saturating_sub(8).max(13))?;
        let plugin = match capabilities & PLUGIN_AUTH {
            0 => Plugin::Native,
            _ => Plugin::named(at.until_nul().unwrap_or_default()),
        };
        Some(Self {
            version,
            capabilities,
            nonce: nonce(&[nonce_begin, nonce_rest].concat()),
            plugin,
        })
    }
}

/// Without the NUL at its end.
fn nonce(sent: &[u8]) -> Vec<u8> {
    sent[..sent.len().min(NONCE_BYTES)].to_vec()
}

/// How the password is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
    Unknown(String),
}

impl Plugin {
    fn named(name: &[u8]) -> Self {
        match name {
            b"mysql_native_password" | b"" => Self::Native,
            b"caching_sha2_password" => Self::CachingSha2,
            name => Self::Unknown(String::from_utf8_lossy(name).into_owned()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Native => "mysql_native_password",
            // What an unknown default plugin is answered with; the server then asks for the user's own.
            Self::CachingSha2 | Self::Unknown(_) => "caching_sha2_password",
        }
    }
}

/// What the client does next.
enum Answer {
    SignedIn,
    Wait,
    Send(Vec<u8>),
    GiveUp(Failure),
}

/// The state of the proof.
struct Proof<'a> {
    plugin: Plugin,
    nonce: Vec<u8>,
    password: &'a [u8],
}

impl Proof<'_> {
    fn answer(&mut self, payload: &[u8]) -> Result<Answer, Failure> {
        match payload {
            [0x00, ..] => Ok(Answer::SignedIn),
            [0xfe, switch @ ..] => self.switch(switch),
            [0x01, more @ ..] if self.plugin == Plugin::CachingSha2 => self.more(more),
            _ => Err(garbage("signing in: a packet that is none of the protocol")),
        }
    }

    /// The user has another plugin than the server's default: its name and a new nonce.
    fn switch(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        let mut at = Cursor::of(request);
        let name = at.until_nul().unwrap_or_default();
        if name.is_empty() {
            return Ok(Answer::GiveUp(foreign("mysql_old_password")));
        }
        self.plugin = Plugin::named(name);
        self.nonce = nonce(at.rest());
        if let Plugin::Unknown(name) = &self.plugin {
            return Ok(Answer::GiveUp(foreign(name)));
        }
        if self.nonce.len() != NONCE_BYTES {
            return Err(garbage("signing in: a nonce that is too short"));
        }
        Ok(Answer::Send(self.scrambled()))
    }

    /// `caching_sha2_password` beyond the first proof: 3 = it was right; 4 = the server has to see the
    /// password itself, encrypted by its key, which has to be asked for (2); the key.
    fn more(&self, data: &[u8]) -> Result<Answer, Failure> {
        match data {
            [3] => Ok(Answer::Wait),
            [4] => Ok(Answer::Send(vec![2])),
            pem => scramble::encrypted(self.password, &self.nonce, pem).map(Answer::Send),
        }
    }

    fn scrambled(&self) -> Vec<u8> {
        match &self.plugin {
            _ if self.password.is_empty() => Vec::new(),
            Plugin::Native => scramble::native(self.password, &self.nonce),
            Plugin::CachingSha2 | Plugin::Unknown(_) => {
                scramble::caching_sha2(self.password, &self.nonce)
            }
        }
    }
}

fn foreign(plugin: &str) -> Failure {
    Failure::new(
        FailureKind::Access,
        format!(
            "the user's password is of the plugin {plugin}; this check knows caching_sha2_password \
             and mysql_native_password"
        ),
    )
}

/// Protocol::HandshakeResponse41.
fn response(user: &str, proof: &Proof<'_>, server: u32) -> Result<Vec<u8>, Failure> {
    if user.contains('\0') {
        return Err(Failure::new(
            FailureKind::Local,
            "the user's name holds a NUL",
        ));
    }
    let plugin_auth = server & PLUGIN_AUTH;
    let capabilities = CAPABILITIES & !PLUGIN_AUTH | plugin_auth;
    let packet_max = 1_u32 << 24;
    let scrambled = proof.scrambled();
    let mut response = Vec::with_capacity(128);
    response.extend(capabilities.to_le_bytes());
    response.extend(packet_max.to_le_bytes());
    response.push(CHARSET);
    response.extend([0; 23]);
    response.extend(user.as_bytes());
    response.push(0);
    // Both proofs are shorter than 251 bytes, below which a length is one byte.
    response.push(scrambled.len() as u8);
    response.extend(scrambled);
    if plugin_auth != 0 {
        response.extend(proof.plugin.name().as_bytes());
        response.push(0);
    }
    Ok(response)
}
