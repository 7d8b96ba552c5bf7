//! Each tier asked in its own language, on the real programs: whatever happens to one of them is found out for
//! what it is, no new flow goes there, and it is back as soon as it answers again.

#[path = "e2e_tiers/application.rs"]
mod application;
#[path = "e2e_tiers/besides.rs"]
mod besides;
#[path = "e2e_tiers/data.rs"]
mod data;
#[path = "e2e_tiers/dns.rs"]
mod dns;
#[path = "e2e_tiers/roles.rs"]
mod roles;
#[path = "e2e_tiers/tier.rs"]
mod tier;
#[path = "e2e_tiers/trouble.rs"]
mod trouble;
#[path = "e2e_tiers/web.rs"]
mod web;
