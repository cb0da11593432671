//! The places that a run makes below the stores it was given, and how none of them is left behind.

use std::collections::BTreeMap;
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use larder::Location;

use crate::Problem;

/// The exit code of a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// What was made and is not removed yet, by the name of its world and its own.
static MADE: Mutex<BTreeMap<(String, String), Location>> = Mutex::new(BTreeMap::new());

fn made() -> MutexGuard<'static, BTreeMap<(String, String), Location>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The places of one world. They are removed when the world ends.
pub(crate) struct Places {
    world: Location,
    name: String,
}

impl Places {
    /// Those of the world of this name, which nobody else uses, below `location`. There are none yet.
    pub(crate) fn of(location: &Location, name: &str) -> Self {
        Self {
            world: location.child(name),
            name: name.to_owned(),
        }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        self.world.scheme()
    }

    /// Where the place of this name lies. From now on it is one of those that are removed.
    pub(crate) fn note(&self, name: &str) -> Location {
        let place = self.world.child(name);
        made().insert((self.name.clone(), name.to_owned()), place.clone());
        place
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let of_all = made();
        let own = of_all.iter().filter(|((world, _), _)| *world == self.name);
        let own: Vec<_> = own
            .map(|(key, place)| (key.clone(), place.clone()))
            .collect();
        drop(of_all);
        for (key, place) in own {
            erase(&place);
            made().remove(&key);
        }
    }
}

fn erase(place: &Location) {
    // A store under check may still have it open, or be broken; what is left over bears its world's name.
    drop(place.erase());
}

/// Removes the places of all worlds, and ends the program before anybody makes another.
fn end() -> ! {
    /// For what was being opened just then.
    const MOMENT: Duration = Duration::from_millis(100);
    let made = made();
    for _ in 0..2 {
        made.values().for_each(erase);
        thread::sleep(MOMENT);
    }
    process::exit(INTERRUPTED)
}

/// From now on an interrupt removes the places that the checks of this moment have made, and ends the program with
/// code 130; another one ends it at once.
///
/// # Errors
///
/// Where there is no thread for it, or no runtime.
pub(crate) fn removed_when_interrupted() -> Result<(), Problem> {
    let failed = |e| Problem::Untested(format!("nothing waits for an interrupt: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let wait = move || {
        let interrupted = runtime.block_on(async {
            tokio::signal::ctrl_c().await?;
            thread::spawn(|| end());
            tokio::signal::ctrl_c().await
        });
        if interrupted.is_ok() {
            process::exit(INTERRUPTED);
        }
    };
    let waiting = thread::Builder::new().name("interrupt".into()).spawn(wait);
    waiting.map(drop).map_err(failed)
}
