//! Authorities of saved checks: their files are saved by name, not by content.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::check::{Check, CheckKind, Trust};
use crate::model::{Model, files};

/// Gives the saved checks in `model` the authorities that `loaded` has read; files that it does not name
/// are read again. One that cannot be read leaves its checks with no authority: they fail, and say so.
pub(super) fn restore(model: &mut Model, loaded: &Model) {
    let mut known: HashMap<PathBuf, Arc<[u8]>> = HashMap::new();
    let lists = loaded.services.values().flat_map(|service| {
        let own = service
            .backends
            .values()
            .filter_map(|one| one.checks.as_ref());
        own.chain([&service.checks])
    });
    for check in lists.flatten() {
        if let Some(Trust::Authorities { file, pem }) = trust(&check.kind) {
            known.insert(file.clone(), Arc::clone(pem));
        }
    }
    for service in model.services.values_mut() {
        let own = service
            .backends
            .values_mut()
            .filter_map(|one| one.checks.as_mut());
        for check in own.flatten().chain(&mut service.checks) {
            fill(check, &mut known);
        }
    }
}

fn fill(check: &mut Check, known: &mut HashMap<PathBuf, Arc<[u8]>>) {
    let trust = match &mut check.kind {
        CheckKind::Http(http) => http.tls.as_mut().map(|tls| &mut tls.trust),
        CheckKind::Grpc(grpc) => grpc.tls.as_mut().map(|tls| &mut tls.trust),
        _ => None,
    };
    if let Some(Trust::Authorities { file, pem }) = trust {
        let content = known.entry(file.clone()).or_insert_with(|| read(file));
        *pem = Arc::clone(content);
    }
}

fn trust(kind: &CheckKind) -> Option<&Trust> {
    let tls = match kind {
        CheckKind::Http(http) => http.tls.as_ref(),
        CheckKind::Grpc(grpc) => grpc.tls.as_ref(),
        _ => None,
    };
    tls.map(|tls| &tls.trust)
}

fn read(file: &Path) -> Arc<[u8]> {
    let read = file.to_str().map(files::authorities);
    match read {
        Some(Ok(Trust::Authorities { pem, .. })) => pem,
        _ => Arc::default(),
    }
}
