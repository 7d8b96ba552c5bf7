//! The laboratory: network namespaces with real servers in them, for the demo and for the
//! end-to-end tests.
//!
//! - [`topology`] builds a whole network: a client, a load balancer, backends, and the switch
//!   between them.
//! - [`lbd`] starts the real daemon in it; [`nginx`] and [`http_backend`] are what it balances to.
//! - [`cluster`] joins two of them.
//! - [`site`] is such a network with web servers and lbd in it; [`service`] writes lbd's
//!   configuration.
//! - [`client`] and [`http`] send requests and tell which backend answered.
//! - `observe` looks at what the kernel has; [`echo`] is a connection that is held open.
//! - [`netns`], [`link`], [`xdp_pass`], [`process`], [`scratch`], [`wait`] are the parts that these
//!   are made of.
//!
//! - `program` is any other real program; `gunicorn`, `node`, `php_fpm`, `grpc`, `postgres`, `redis`, `dnsmasq` and
//!   `tls_nginx` say how each is started and troubled, `firewall` comes between.
//! - `vrrp` is an lbd-vrrp without its lbd; `keepalived` is what it has to get along with.
//! - `clock` is a wall clock of a node's own.
//! - `disruption` has all kinds of connections go on while things change, and counts what breaks.
//! - `failover` has two balancers, ours or `keepalived` with `haproxy`, one of which goes away.
//! - `outage` has backends die under a load, `databases` and `writers` a primary under writes; `soak` looks for
//!   what many checks leave behind.
//! - [`datapath`] runs the datapath's own code on the host, and holds the packet fixtures;
//!   `generator` makes frames of many flows.
//!
//! What a test creates is gone when its values are dropped, by a panic too; what a killed process
//! left behind is removed by the next one that creates a namespace ([`netns::Netns::create`]).

pub mod capture;
#[cfg(feature = "e2e")]
pub mod certificates;
#[cfg(feature = "e2e")]
pub mod choice;
pub mod client;
#[cfg(feature = "e2e")]
pub mod clock;
pub mod cluster;
pub mod cpu;
#[cfg(feature = "e2e")]
pub mod databases;
#[cfg(feature = "datapath")]
pub mod datapath;
#[cfg(feature = "e2e")]
pub mod disruption;
pub mod dns;
#[cfg(feature = "e2e")]
pub mod dnsmasq;
pub mod echo;
#[cfg(feature = "e2e")]
pub mod failover;
#[cfg(feature = "e2e")]
pub mod firewall;
#[cfg(feature = "bpf")]
pub mod generator;
#[cfg(feature = "e2e")]
pub mod grpc;
#[cfg(feature = "e2e")]
pub mod gunicorn;
#[cfg(feature = "e2e")]
pub mod haproxy;
pub mod http;
pub mod http_backend;
#[cfg(feature = "e2e")]
pub mod keepalived;
pub mod lbd;
pub mod link;
#[cfg(feature = "e2e")]
pub mod mariadb;
pub mod netns;
pub mod nginx;
#[cfg(feature = "e2e")]
pub mod node;
#[cfg(feature = "e2e")]
pub mod observe;
#[cfg(feature = "e2e")]
pub mod outage;
#[cfg(feature = "e2e")]
pub mod php_fpm;
pub mod pins;
#[cfg(feature = "e2e")]
pub mod postgres;
pub mod process;
#[cfg(feature = "e2e")]
pub mod program;
#[cfg(feature = "e2e")]
pub mod redis;
pub mod requirement;
pub mod scratch;
pub mod service;
pub mod shares;
pub mod signals;
pub mod site;
#[cfg(feature = "e2e")]
pub mod soak;
#[cfg(feature = "e2e")]
pub mod sql_client;
#[cfg(feature = "e2e")]
pub mod tls_nginx;
pub mod topology;
#[cfg(feature = "e2e")]
pub mod vrrp;
pub mod wait;
#[cfg(feature = "e2e")]
pub mod writers;
pub mod xdp_pass;

pub use client::Client;
pub use lbd::Lbd;
pub use netns::Netns;
pub use requirement::{Requirement, is_root, require};
#[cfg(feature = "e2e")]
pub use serde_json;
pub use service::ServiceText;
pub use site::Site;
pub use topology::{Forward, Interfaces, Plan, Topology};
