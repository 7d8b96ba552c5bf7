//! What of one peer waits in this node: so much, and no more, so that it crowds out nobody else.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sync::session::FRAME_MAX_BYTES;

/// Of one peer's frames, so much may wait. Unit: bytes.
const ROOM_BYTES: usize = 2 << 20;
/// What the smallest frame counts for. Unit: bytes.
const COST_MIN_BYTES: usize = 8 << 10;
/// Frames of one peer that can wait at a time.
pub(super) const FRAMES_MAX: usize = ROOM_BYTES / COST_MIN_BYTES;

const _: () = assert!(FRAME_MAX_BYTES <= ROOM_BYTES && ROOM_BYTES <= u32::MAX as usize);

/// A peer's room for frames that have arrived and are not dealt with yet.
#[derive(Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
}

/// A frame's content. It takes up its sender's room for as long as it is kept.
#[derive(Clone, Debug)]
pub struct FrameBytes {
    bytes: Vec<u8>,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(ROOM_BYTES)),
        }
    }
}

impl Room {
    /// Takes a frame in, or gives it back if there is no room now.
    pub(super) fn take_in(&self, bytes: Vec<u8>) -> Result<FrameBytes, Vec<u8>> {
        match Arc::clone(&self.free).try_acquire_many_owned(cost_bytes(bytes.len())) {
            Ok(place) => Ok(FrameBytes {
                bytes,
                _place: Arc::new(place),
            }),
            Err(_) => Err(bytes),
        }
    }

    /// Waits until there is room for a frame of this length.
    pub(super) async fn wait_for(&self, len_bytes: usize) {
        // The semaphore is never closed.
        let _free_again = self.free.acquire_many(cost_bytes(len_bytes)).await;
    }
}

fn cost_bytes(len_bytes: usize) -> u32 {
    len_bytes.clamp(COST_MIN_BYTES, ROOM_BYTES) as u32
}

impl Deref for FrameBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for FrameBytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for FrameBytes {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn the_room_is_used_up_by_number_and_by_length_and_free_again_when_frames_are_gone() {
        for (len_bytes, count) in [
            (0, FRAMES_MAX),
            (COST_MIN_BYTES, FRAMES_MAX),
            (FRAME_MAX_BYTES, ROOM_BYTES / FRAME_MAX_BYTES),
        ] {
            let room = Room::default();
            let mut kept = Vec::new();
            for _ in 0..count {
                kept.push(room.take_in(vec![1; len_bytes]).expect("room"));
            }
            let further = vec![2; FRAME_MAX_BYTES];
            assert_eq!(
                room.take_in(further.clone()),
                Err(further),
                "{len_bytes} bytes"
            );
            let waiting = timeout(MOMENT, room.wait_for(FRAME_MAX_BYTES)).await;
            assert!(waiting.is_err(), "{len_bytes} bytes");
            let copy = kept[0].clone();
            drop(kept);
            room.wait_for(FRAME_MAX_BYTES).await;
            assert_eq!(copy.len(), len_bytes);
            let used_bytes = len_bytes.max(COST_MIN_BYTES);
            assert_eq!(room.free.available_permits(), ROOM_BYTES - used_bytes);
            drop(copy);
            assert_eq!(room.free.available_permits(), ROOM_BYTES);
        }
    }
}
