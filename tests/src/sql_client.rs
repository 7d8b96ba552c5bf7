//! A small MySQL client: it signs in without a password and runs statements that return no rows. Each of them
//! is acknowledged by the server or has failed, which a program that runs scripts does not tell.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::disruption::traffic::Breakage;

/// CLIENT_LONG_PASSWORD, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x1 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
/// utf8mb4_general_ci.
const CHARSET: u8 = 45;
/// The longest packet that is sent or read. Unit: bytes.
const PACKET_LEN_MAX: u32 = 1 << 16;
/// COM_QUERY and COM_QUIT.
const QUERY: u8 = 3;
const QUIT: u8 = 1;
/// First byte of a packet that says: well done; an error; authenticate in another way.
const OK: u8 = 0;
const ERROR: u8 = 0xff;
const SWITCH: u8 = 0xfe;

/// Why a statement was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlError {
    /// The connection broke, or did not come about.
    Broken(Breakage),
    /// The server said no.
    Said {
        /// MariaDB's error number.
        code: u16,
        /// In its words.
        message: String,
    },
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(breakage) => breakage.fmt(f),
            Self::Said { code, message } => write!(f, "{code} {message}"),
        }
    }
}

impl From<io::Error> for SqlError {
    fn from(error: io::Error) -> Self {
        // What a socket's time-out is called (socket(7), EAGAIN).
        let error = match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        };
        Self::Broken(error.into())
    }
}

/// A connection that is signed in.
#[derive(Debug)]
pub struct SqlConnection {
    stream: TcpStream,
    sequence: u8,
}

impl SqlConnection {
    /// Connects, in the network namespace of the calling thread, and signs in. Nothing takes longer than
    /// `timeout`.
    pub fn open(
        address: SocketAddr,
        user: &str,
        database: &str,
        timeout: Duration,
    ) -> Result<Self, SqlError> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            sequence: 0,
        };
        check(&connection.read()?)?;
        connection.send(&sign_in(user, database))?;
        let mut answer = connection.read()?;
        if answer.first() == Some(&SWITCH) {
            // Whatever the way: nothing proves that there is no password.
            connection.send(&[])?;
            answer = connection.read()?;
        }
        check(&answer)?;
        Ok(connection)
    }

    /// Runs a statement that returns no rows.
    pub fn execute(&mut self, statement: &str) -> Result<(), SqlError> {
        self.sequence = 0;
        self.send(&[&[QUERY], statement.as_bytes()].concat())?;
        let answer = self.read()?;
        check(&answer)?;
        match answer.first() {
            Some(&OK) => Ok(()),
            _ => Err(wrong("rows")),
        }
    }

    /// Takes leave, so that the server counts no broken connection.
    pub fn quit(mut self) -> Result<(), SqlError> {
        self.sequence = 0;
        self.send(&[QUIT])?;
        match self.stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(wrong("something after the end")),
        }
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), SqlError> {
        let mut packet = (payload.len() as u32).to_le_bytes();
        packet[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&[&packet, payload].concat())?;
        Ok(())
    }

    fn read(&mut self) -> Result<Vec<u8>, SqlError> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, sequence] = head;
        let length = u32::from_le_bytes([a, b, c, 0]);
        if length > PACKET_LEN_MAX {
            return Err(wrong("a packet that is too long"));
        }
        self.sequence = sequence.wrapping_add(1);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }
}

/// HandshakeResponse41, with an empty password.
fn sign_in(user: &str, database: &str) -> Vec<u8> {
    let mut payload = CAPABILITIES.to_le_bytes().to_vec();
    payload.extend(PACKET_LEN_MAX.to_le_bytes());
    payload.push(CHARSET);
    payload.extend([0; 23]);
    for text in [user, "", database, "mysql_native_password"] {
        payload.extend(text.as_bytes());
        // The end of a text; for the empty password its length.
        payload.push(0);
    }
    payload
}

/// ERR_Packet: the number, and a message that begins with `#` and five characters of SQLSTATE unless nobody
/// has signed in yet.
fn check(payload: &[u8]) -> Result<(), SqlError> {
    let [ERROR, low, high, text @ ..] = payload else {
        return Ok(());
    };
    let text = match text {
        [b'#', _, _, _, _, _, text @ ..] => text,
        _ => text,
    };
    Err(SqlError::Said {
        code: u16::from_le_bytes([*low, *high]),
        message: String::from_utf8_lossy(text).into_owned(),
    })
}

fn wrong(what: &str) -> SqlError {
    SqlError::Broken(Breakage::WrongData(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_error_is_told_with_and_without_its_state() {
        let said = |text: &str| SqlError::Said {
            code: 1290,
            message: text.to_owned(),
        };
        let bytes = |text: &str| [&[0xff, 0x0a, 0x05], text.as_bytes()].concat();
        assert_eq!(check(&bytes("#HY000read-only")), Err(said("read-only")));
        assert_eq!(check(&bytes("busy")), Err(said("busy")));
        assert_eq!(check(&[0, 0, 0]), Ok(()));
    }

    #[test]
    fn a_server_that_says_nothing_has_timed_out_and_one_that_is_gone_has_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let open = || SqlConnection::open(address, "app", "shop", Duration::from_millis(50));
        assert_eq!(open().unwrap_err(), SqlError::Broken(Breakage::TimedOut));
        drop(listener);
        assert_eq!(open().unwrap_err(), SqlError::Broken(Breakage::Refused));
    }

    /// A server that takes the sign-in and one statement.
    #[test]
    fn a_statement_is_acknowledged_in_the_order_of_the_protocol() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let read = |stream: &mut TcpStream| {
                let mut head = [0; 4];
                stream.read_exact(&mut head).unwrap();
                let mut payload = vec![0; usize::from(head[0])];
                stream.read_exact(&mut payload).unwrap();
                (head[3], payload)
            };
            stream.write_all(&[2, 0, 0, 0, 10, b'M']).unwrap();
            let (sequence, sign_in) = read(&mut stream);
            assert_eq!(sequence, 1);
            assert!(sign_in[32..].starts_with(b"app\0\0shop\0mysql_native_password\0"));
            stream.write_all(&[3, 0, 0, 2, OK, 0, 0]).unwrap();
            let (sequence, query) = read(&mut stream);
            assert_eq!((sequence, query.as_slice()), (0, &b"\x03DO 1"[..]));
            stream.write_all(&[3, 0, 0, 1, OK, 1, 0]).unwrap();
            let (sequence, quit) = read(&mut stream);
            assert_eq!((sequence, quit.as_slice()), (0, &[QUIT][..]));
        });
        let timeout = Duration::from_secs(5);
        let mut connection = SqlConnection::open(address, "app", "shop", timeout).unwrap();
        connection.execute("DO 1").unwrap();
        connection.quit().unwrap();
        server.join().unwrap();
    }
}
