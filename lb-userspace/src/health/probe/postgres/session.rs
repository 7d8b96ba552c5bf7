//! A conversation in PostgreSQL's protocol 3: messages, signing in, simple queries.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::backend::{
    DataRowBody, ErrorResponseBody, Message, SaslMechanisms,
};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use fallible_iterator::FallibleIterator;

use crate::health::outcome::{Failure, FailureKind};
use crate::health::probe::connect::{self, AnyStream};
use crate::health::probe::secret::Password;

/// The largest message that is read. Unit: bytes, header included.
const MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Rows of a result. Unit: rows.
const ROWS_MAX: usize = 256;

/// What this client calls itself in pg_stat_activity.
const APPLICATION_NAME: &str = "lbd health check";

/// A result's rows; `None` is NULL.
pub(super) type Rows = Vec<Vec<Option<String>>>;

/// A connection, bounded as a whole by [`connect::READ_BYTES_MAX`].
pub(super) struct Session<'a> {
    stream: BufReader<AnyStream>,
    password: Option<&'a Password>,
}

impl<'a> Session<'a> {
    pub(super) fn over(stream: AnyStream, password: Option<&'a Password>) -> Self {
        Self {
            stream: BufReader::with_capacity(4096, stream),
            password,
        }
    }

    /// Start-up and authentication, until the server is ready for a query.
    pub(super) async fn sign_in(&mut self, user: &str, database: &str) -> Result<(), Failure> {
        let parameters = [
            ("user", user),
            ("database", database),
            ("application_name", APPLICATION_NAME),
            ("client_encoding", "UTF8"),
        ];
        self.send("signing in", |buffer| {
            frontend::startup_message(parameters, buffer)
        })
        .await?;
        let mut scram = None;
        loop {
            match self.read("signing in").await? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::AuthenticationOk
                | Message::BackendKeyData(_)
                | Message::ParameterStatus(_)
                | Message::NoticeResponse(_) => {}
                Message::AuthenticationMd5Password(body) => {
                    let proof = md5_hash(user.as_bytes(), self.secret()?, body.salt());
                    self.prove(proof.as_bytes()).await?;
                }
                Message::AuthenticationSasl(body) => {
                    scram = Some(self.begin_scram(body.mechanisms()).await?);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let state = scram.take().ok_or_else(out_of_order)?;
                    scram = Some(self.go_on_scram(state, body.data().to_vec()).await?);
                }
                Message::AuthenticationSaslFinal(body) => {
                    let mut state = scram.take().ok_or_else(out_of_order)?;
                    state
                        .finish(body.data())
                        .map_err(|error| unproven(&error))?;
                }
                Message::AuthenticationCleartextPassword => return Err(in_clear_text()),
                Message::ErrorResponse(body) => return Err(self.refused(&body, "signing in")),
                _ => return Err(out_of_order()),
            }
        }
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn query(&mut self, sql: &str, doing: &str) -> Result<Rows, Failure> {
        self.send(doing, |buffer| frontend::query(sql, buffer))
            .await?;
        let mut rows = Rows::new();
        let mut result = Ok(());
        loop {
            match self.read(doing).await? {
                Message::ReadyForQuery(_) => return result.map(|()| rows),
                Message::DataRow(_) if rows.len() == ROWS_MAX => {
                    return Err(garbage(format!(
                        "{doing}: more than {ROWS_MAX} rows: let the query return one"
                    )));
                }
                Message::DataRow(row) => rows.push(values(&row)?),
                Message::ErrorResponse(body) => result = Err(self.refused(&body, doing)),
                Message::RowDescription(_)
                | Message::CommandComplete(_)
                | Message::EmptyQueryResponse
                | Message::ParameterStatus(_)
                | Message::NotificationResponse(_)
                | Message::NoticeResponse(_) => {}
                _ => return Err(out_of_order()),
            }
        }
    }

    /// Terminate, and waiting until the server has closed: it then has seen an orderly end.
    pub(super) async fn terminate(mut self) {
        let said = self.send("quitting", |buffer| {
            frontend::terminate(buffer);
            Ok(())
        });
        if said.await.is_ok() {
            let mut left = [0; 512];
            while matches!(self.stream.read(&mut left).await, Ok(1..)) {}
        }
    }

    async fn begin_scram(
        &mut self,
        mechanisms: SaslMechanisms<'_>,
    ) -> Result<ScramSha256, Failure> {
        let mut mechanisms = mechanisms;
        let is_known = mechanisms
            .any(|name| Ok(name == sasl::SCRAM_SHA_256))
            .map_err(|error| garbage(format!("signing in: {error}")))?;
        if !is_known {
            return Err(Failure::new(
                FailureKind::Access,
                "the server asks for another proof than SCRAM-SHA-256 without channel binding",
            ));
        }
        let scram = ScramSha256::new(self.secret()?, ChannelBinding::unsupported());
        self.send("signing in", |buffer| {
            frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), buffer)
        })
        .await?;
        Ok(scram)
    }

    /// The server chooses how much is to be computed: thousands of hashes, and up to 100,000. Not on
    /// a thread that others wait for.
    async fn go_on_scram(
        &mut self,
        mut scram: ScramSha256,
        challenge: Vec<u8>,
    ) -> Result<ScramSha256, Failure> {
        let computed =
            tokio::task::spawn_blocking(move || scram.update(&challenge).map(|()| scram));
        let scram = computed
            .await
            .map_err(|error| Failure::new(FailureKind::Local, error))?
            .map_err(|error| unproven(&error))?;
        self.send("signing in", |buffer| {
            frontend::sasl_response(scram.message(), buffer)
        })
        .await?;
        Ok(scram)
    }

    async fn prove(&mut self, proof: &[u8]) -> Result<(), Failure> {
        self.send("signing in", |buffer| {
            frontend::password_message(proof, buffer)
        })
        .await
    }

    fn secret(&self) -> Result<&'a [u8], Failure> {
        self.password.map(Password::as_bytes).ok_or_else(|| {
            Failure::new(
                FailureKind::Access,
                "the server asks for a password, and the check has none",
            )
        })
    }

    async fn send(
        &mut self,
        doing: &str,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let mut buffer = BytesMut::new();
        write(&mut buffer)
            .map_err(|error| Failure::new(FailureKind::Local, format!("{doing}: {error}")))?;
        let sent = async {
            self.stream.write_all(&buffer).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| connect::broken(&error, doing))
    }

    async fn read(&mut self, doing: &str) -> Result<Message, Failure> {
        let broken = |error| connect::broken(&error, doing);
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).await.map_err(broken)?;
        let [_tag, length @ ..] = header;
        // The length counts itself, and not the tag.
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(4..MESSAGE_MAX_BYTES).contains(&length) {
            return Err(garbage(format!(
                "{doing}: a message of {length} bytes: no PostgreSQL server, or more than a check reads"
            )));
        }
        let mut message = BytesMut::zeroed(length + 1);
        message[..5].copy_from_slice(&header);
        self.stream
            .read_exact(&mut message[5..])
            .await
            .map_err(broken)?;
        Message::parse(&mut message)
            .map_err(|error| garbage(format!("{doing}: {error}")))?
            .ok_or_else(|| garbage(format!("{doing}: a message without an end")))
    }

    /// An ErrorResponse in words.
    fn refused(&self, body: &ErrorResponseBody, doing: &str) -> Failure {
        let (mut code, mut words) = (String::new(), String::new());
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            match field.type_() {
                b'C' => code = String::from_utf8_lossy(field.value_bytes()).into_owned(),
                b'M' => words = String::from_utf8_lossy(field.value_bytes()).into_owned(),
                _ => {}
            }
        }
        let words = match self.password {
            Some(password) => password.hidden_in(&words),
            None => words,
        };
        let kind = if is_access(&code) {
            FailureKind::Access
        } else {
            FailureKind::Unexpected
        };
        Failure::new(kind, format!("{doing}: error {code}: {words}"))
    }
}

/// Class 28 (invalid authorization), too many connections, no such database, no privilege.
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>)
fn is_access(code: &str) -> bool {
    code.starts_with("28") || ["53300", "3D000", "42501"].contains(&code)
}

fn values(row: &DataRowBody) -> Result<Vec<Option<String>>, Failure> {
    let text = |range: std::ops::Range<usize>| {
        let bytes = row.buffer().get(range).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    row.ranges()
        .map(|range| Ok(range.map(text)))
        .collect()
        .map_err(|error: std::io::Error| garbage(format!("a malformed row: {error}")))
}

fn garbage(reason: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Protocol, reason)
}

fn out_of_order() -> Failure {
    garbage("the server sends a message that is none of this place in the protocol")
}

fn unproven(error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Access, format!("signing in by SCRAM: {error}"))
}

fn in_clear_text() -> Failure {
    Failure::new(
        FailureKind::Access,
        "the server asks for the password in clear text, which a check does not send: let pg_hba.conf \
         ask this user for scram-sha-256",
    )
}
