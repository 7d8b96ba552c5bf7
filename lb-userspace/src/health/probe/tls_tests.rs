//! Certificates and handshakes, right and wrong.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::super::hostile::{
    Server, ask, blurts, drips, failure, floods, is_reset, resets, timed_out,
};
use super::{RING, without_port};
use crate::health::outcome::FailureKind;
use crate::model::check::{CheckKind, HttpCheck, HttpVersion, StatusRange, TlsCheck, Trust};

const DAY: Duration = Duration::from_secs(86_400);

/// Half a day is added or taken, so that no test depends on the second.
const NEVER: Days = Days(-30, 30);

/// From when to when a certificate is valid, half a day later. Unit: days from now.
#[derive(Clone, Copy)]
struct Days(i64, i64);

impl Days {
    fn apply(self, params: &mut CertificateParams) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock");
        let at = |days: i64| {
            let epoch = rcgen::date_time_ymd(1970, 1, 1) + now + DAY / 2;
            match u32::try_from(days) {
                Ok(days) => epoch + DAY * days,
                Err(_) => epoch - DAY * u32::try_from(-days).expect("a number of days"),
            }
        };
        params.not_before = at(self.0);
        params.not_after = at(self.1);
    }
}

/// A certificate and its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

fn named(common_name: &str, names: &[&str], days: Days) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, common_name);
    days.apply(&mut params);
    params
}

fn authority(common_name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = named(common_name, &[], NEVER);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn issued(by: &CertifiedIssuer<'static, KeyPair>, names: &[&str], days: Days) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let params = named("server", names, days);
    let certificate = params.signed_by(&key, by).expect("a certificate");
    Identity {
        chain: vec![certificate.der().clone()],
        key,
    }
}

fn self_signed(days: Days) -> (Identity, String) {
    let key = KeyPair::generate().expect("a key");
    // As `openssl req -x509` makes them.
    let mut params = named("server", &["web.example"], days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    let chain = vec![certificate.der().clone()];
    (Identity { chain, key }, certificate.pem())
}

fn config(identity: &Identity, protocol: &[u8]) -> ServerConfig {
    let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&RING))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), key)
        .expect("a certificate");
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

/// Answers a request; returns the SNI that was asked for, if there was a request at all.
async fn serves(stream: TcpStream, config: ServerConfig) -> Option<String> {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut stream = acceptor.accept(stream).await.ok()?;
    let name = stream.get_ref().1.server_name().map(str::to_owned);
    let mut buffer = [0; 4096];
    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
        return None;
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nup").await;
    let _ = stream.shutdown().await;
    Some(name.unwrap_or_else(|| "no SNI".to_owned()))
}

async fn server(identity: &Identity) -> Server<Option<String>> {
    let config = config(identity, b"http/1.1");
    Server::start(|stream| serves(stream, config)).await
}

fn trusting(pem: &str) -> Trust {
    Trust::Authorities {
        file: PathBuf::from("/etc/lbd/ca.pem"),
        pem: pem.as_bytes().into(),
    }
}

fn https(host: Option<&str>, trust: Trust) -> CheckKind {
    CheckKind::Http(HttpCheck {
        tls: Some(TlsCheck {
            server_name: None,
            trust,
            min_valid_days: 14,
        }),
        version: HttpVersion::Http1,
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: host.map(str::to_owned),
        headers: Vec::new(),
        status: vec![StatusRange {
            first: 200,
            last: 200,
        }],
        body: "up".to_owned(),
    })
}

fn tls(reason: &str) -> (FailureKind, String) {
    (FailureKind::Tls, reason.to_owned())
}

#[tokio::test]
async fn a_right_certificate_is_accepted_and_its_days_are_told() {
    let authority = authority("A");
    let pem = authority.pem();
    let server_one = server(&issued(&authority, &["web.example"], Days(-1, 20))).await;
    let kind = https(Some("web.example:443"), trusting(&pem));
    let (result, observed) = ask(&kind, server_one.target()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(observed.certificate_days, Some(20));
    assert_eq!(observed.warning, None);
    assert_eq!(server_one.ended().await.as_deref(), Some("web.example"));

    let soon = server(&issued(&authority, &["web.example"], Days(-1, 9))).await;
    let (result, observed) = ask(&kind, soon.target()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        observed.warning.as_deref(),
        Some("certificate expires in 9 days, fewer than 14")
    );
}

#[tokio::test]
async fn without_a_name_the_certificate_is_for_the_address() {
    let authority = authority("A");
    let pem = authority.pem();
    let addressed = server(&issued(&authority, &["127.0.0.1"], NEVER)).await;
    let (result, _) = ask(&https(None, trusting(&pem)), addressed.target()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(addressed.ended().await.as_deref(), Some("no SNI"));

    let named = server(&issued(&authority, &["web.example"], NEVER)).await;
    assert_eq!(
        failure(&https(None, trusting(&pem)), named.target()).await,
        tls("certificate is for web.example, not for 127.0.0.1")
    );
    assert_eq!(named.ended().await, None, "no request");
}

#[tokio::test]
async fn refused_certificates_are_told_in_words_and_their_days_too() {
    let (ours, theirs) = (authority("Ours"), authority("Theirs"));
    let (own, _) = self_signed(NEVER);
    for (identity, words, days) in [
        (
            issued(&ours, &["web.example"], Days(-90, -4)),
            "certificate expired 3 days ago",
            -4,
        ),
        (
            issued(&ours, &["web.example"], Days(2, 90)),
            "certificate is not valid before 2 days from now: are both clocks right?",
            90,
        ),
        (
            issued(
                &ours,
                &["a.example", "b.example", "10.0.0.1", "c.example"],
                NEVER,
            ),
            "certificate is for a.example, b.example, 10.0.0.1, …, not for web.example",
            30,
        ),
        (
            issued(&ours, &[], NEVER),
            "certificate is for no name (it has no subjectAltName), not for web.example",
            30,
        ),
        (
            issued(&theirs, &["web.example"], NEVER),
            "untrusted certificate: its issuer CN=Theirs is not in /etc/lbd/ca.pem",
            30,
        ),
        (
            own,
            "self-signed certificate, which is not in /etc/lbd/ca.pem",
            30,
        ),
    ] {
        let server = server(&identity).await;
        let kind = https(Some("web.example"), trusting(&ours.pem()));
        let (result, observed) = ask(&kind, server.target()).await;
        let failure = result.expect_err(words);
        assert_eq!((failure.kind, failure.reason), tls(words));
        assert_eq!(observed.certificate_days, Some(days), "{words}");
        assert_eq!(observed.warning, None, "no more words: {words}");
        assert_eq!(server.ended().await, None, "no request: {words}");
    }
}

#[tokio::test]
async fn a_chain_is_followed_to_its_authority() {
    let root = authority("Root");
    let mut params = named("Between", &[], NEVER);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let between = CertifiedIssuer::signed_by(params, key, &root).expect("an authority");
    let mut identity = issued(&between, &["web.example"], NEVER);
    let kind = https(Some("web.example"), trusting(&root.pem()));

    let alone = server(&identity).await;
    let (kind_of, reason) = failure(&kind, alone.target()).await;
    assert_eq!(kind_of, FailureKind::Tls);
    assert!(
        reason.contains("its issuer CN=Between is not in"),
        "{reason}"
    );

    identity.chain.push(between.der().clone());
    let whole = server(&identity).await;
    assert_eq!(ask(&kind, whole.target()).await.0, Ok(()));
}

#[tokio::test]
async fn a_self_signed_certificate_in_the_file_is_trusted_while_it_is_valid() {
    let (identity, pem) = self_signed(NEVER);
    let kind = https(Some("web.example"), trusting(&pem));
    let valid = server(&identity).await;
    assert_eq!(ask(&kind, valid.target()).await.0, Ok(()));

    let other = https(Some("other.example"), trusting(&pem));
    let wrong_name = server(&identity).await;
    assert_eq!(
        failure(&other, wrong_name.target()).await,
        tls("certificate is for web.example, not for other.example")
    );

    let (expired, pem) = self_signed(Days(-9, -2));
    let kind = https(Some("web.example"), trusting(&pem));
    let server = server(&expired).await;
    assert_eq!(
        failure(&kind, server.target()).await,
        tls("certificate expired 1 day ago")
    );
}

#[tokio::test]
async fn from_anybody_means_that_the_days_are_told_alone() {
    let (identity, _) = self_signed(Days(-9, -2));
    let server = server(&identity).await;
    let kind = https(Some("other.example"), Trust::Anybody);
    let (result, observed) = ask(&kind, server.target()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(observed.certificate_days, Some(-2));
    assert_eq!(observed.warning.as_deref(), Some("certificate has expired"));
}

#[tokio::test]
async fn http2_has_to_be_chosen() {
    let (identity, _) = self_signed(NEVER);
    let CheckKind::Http(check) = https(None, Trust::Anybody) else {
        unreachable!("it is one of HTTP");
    };
    let kind = CheckKind::Http(HttpCheck {
        version: HttpVersion::Http2,
        ..check
    });
    for protocols in [vec![b"http/1.1".to_vec()], Vec::new()] {
        let mut config = config(&identity, b"");
        config.alpn_protocols = protocols;
        let server = Server::start(|stream| serves(stream, config)).await;
        assert_eq!(
            failure(&kind, server.target()).await,
            tls("the server does not choose HTTP/2 (ALPN)")
        );
    }
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_says_so() {
    let authority = authority("A");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&RING));
    let identity = issued(&authority, &["web.example"], NEVER);
    let config = ServerConfig::builder_with_provider(Arc::clone(&RING))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(
            identity.chain.clone(),
            PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key"),
        )
        .expect("a certificate");
    let server = Server::start(|stream| serves(stream, config)).await;
    assert_eq!(
        failure(&https(None, Trust::Anybody), server.target()).await,
        tls("the server wants a client certificate, and this check has none")
    );
}

#[tokio::test]
async fn what_is_no_handshake_is_told() {
    let kind = https(None, Trust::Anybody);
    let plain = "HTTP/1.1 400 Bad Request\r\n\r\n";
    let garbage = "\u{16}\u{3}\u{3}\0\u{10}garbage garbage!";
    for answer in [plain, garbage, "\0\0\0\0\0\0\0\0\0\0"] {
        let server = Server::start(move |stream| blurts(stream, answer)).await;
        let (kind, reason) = failure(&kind, server.target()).await;
        assert_eq!(kind, FailureKind::Tls, "{reason}");
        assert!(
            reason.starts_with("the server does not speak TLS at this port ("),
            "{reason}"
        );
    }
    let server = Server::start(is_reset).await;
    assert_eq!(
        timed_out(&kind, server.target()).await,
        "TLS handshake: timed out after 100 ms"
    );
    assert!(server.ended().await, "reset");

    let server = Server::start(resets).await;
    assert_eq!(
        failure(&kind, server.target()).await,
        (
            FailureKind::Closed,
            "TLS handshake: connection reset by the server".to_owned()
        )
    );
    let server = Server::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    assert_eq!(
        failure(&kind, server.target()).await,
        (
            FailureKind::Closed,
            "TLS handshake: closed by the server".to_owned()
        )
    );
}

#[tokio::test]
async fn endless_handshakes_cost_a_bounded_buffer_and_drips_the_time_out() {
    let kind = https(None, Trust::Anybody);
    // A record of 16 KiB within a handshake message of 16 MiB.
    let mut record = vec![0x16, 3, 3, 0x40, 0];
    record.resize(5 + 0x4000, 0x61);
    let mut first = record.clone();
    first[5..9].copy_from_slice(&[2, 0xff, 0xff, 0xff]);
    for (first, again) in [
        (first, record),
        // Records that change nothing (RFC 8446 appendix D.4).
        (Vec::new(), vec![0x14, 3, 3, 0, 1, 1]),
        // Alerts of no consequence.
        (Vec::new(), vec![0x15, 3, 3, 0, 2, 1, 90]),
    ] {
        let server = Server::start(move |stream| async move {
            floods(stream, &first, &again).await;
        })
        .await;
        let (kind, reason) = failure(&kind, server.target()).await;
        assert!(
            matches!(kind, FailureKind::Tls | FailureKind::Protocol),
            "{reason}"
        );
        server.ended().await;
    }
    let server = Server::start(|stream| drips(stream, &[0x16, 3, 3, 0x40, 0], b"a")).await;
    timed_out(&kind, server.target()).await;
    server.ended().await;
}

#[tokio::test]
async fn a_name_that_is_none_is_this_nodes_mistake() {
    let server = Server::start(is_reset).await;
    let kind = https(Some("not a name"), Trust::Anybody);
    let (kind, reason) = failure(&kind, server.target()).await;
    assert_eq!(kind, FailureKind::Local);
    assert!(
        reason.contains("\"not a name\" is no server name"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_file_may_hold_more_than_certificates_but_not_less() {
    let authority = authority("A");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let pem = format!("a comment\n{broken}{}", authority.pem());
    let mixed = server(&issued(&authority, &["web.example"], NEVER)).await;
    let kind = https(Some("web.example"), trusting(&pem));
    assert_eq!(ask(&kind, mixed.target()).await.0, Ok(()));

    for pem in ["", "garbage", broken] {
        let server = server(&issued(&authority, &["web.example"], NEVER)).await;
        let kind = https(Some("web.example"), trusting(pem));
        let (kind, reason) = failure(&kind, server.target()).await;
        assert_eq!(kind, FailureKind::Local);
        assert!(
            reason.starts_with("/etc/lbd/ca.pem: there is no certificate in it"),
            "{reason}"
        );
    }
}

#[test]
fn a_port_is_no_part_of_a_name() {
    for (host, name) in [
        ("web.example", "web.example"),
        ("web.example:8443", "web.example"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.1:443", "10.0.0.1"),
    ] {
        assert_eq!(without_port(host), name);
    }
    assert!(without_port("[::1]").parse::<IpAddr>().is_ok());
}
