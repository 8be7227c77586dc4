//! Many terms, each of a seed of its own. CI runs some; `tests/run simulation --steps 1000000 --seed 7` runs a campaign. A
//! failure names the seed of its term, which replays it exactly.

use crate::term::{Counts, Term};
use crate::world::Killed;

/// Steps of one term: after these everything is mended and the lab must come to rest.
const STEPS_PER_TERM: u64 = 60;

/// What CI runs when nothing else is asked for.
const STEPS_IN_CI: u64 = 12_000;
const HOURS_IN_CI: u64 = 6;

pub(crate) fn number_from(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => otherwise,
    }
}

/// Kills are panics of the simulated world, thousands of them: only real ones are worth a message.
pub(crate) fn silence_kills() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Killed>() && !crate::lab::is_of_a_scope(info.payload()) {
                report(info);
            }
        }));
    });
}

/// Terms side by side, one thread per processor. Each is a world of its own, so the order does not matter.
fn run_terms(first_seed: u64, terms: u64, live: fn(&mut Term)) -> Counts {
    let next = std::sync::atomic::AtomicU64::new(first_seed);
    let total = std::sync::Mutex::new(Counts::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= first_seed + terms {
                return;
            }
            let mut term = Term::new(seed);
            live(&mut term);
            total.lock().unwrap().add(&term.counts);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                // The others end with their next term.
                next.store(first_seed + terms, std::sync::atomic::Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
    });
    total.into_inner().unwrap()
}

#[test]
fn the_promises_hold_whatever_happens() {
    silence_kills();
    let first_seed = number_from("LABWRIGHT_SIMULATION_SEED", 1);
    let terms = number_from("LABWRIGHT_SIMULATION_STEPS", STEPS_IN_CI).div_ceil(STEPS_PER_TERM);
    let began = std::time::Instant::now();
    let counts = run_terms(first_seed, terms, |term| term.run(STEPS_PER_TERM));
    assert!(
        terms < 20 || counts.kills > terms / 4,
        "a simulation that hardly ever kills proves little: {} kills",
        counts.kills
    );
    let told = format!(
        "simulation: {} steps, {terms} terms from seed {first_seed}, {:.0} s: {counts}\n",
        terms * STEPS_PER_TERM,
        began.elapsed().as_secs_f64()
    );
    std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()).unwrap();
}

/// Hours of the daemon's loop, which looks at the lab as it was applied, whatever becomes of it meanwhile.
#[test]
fn the_promises_hold_while_the_loop_goes_round_for_an_hour() {
    silence_kills();
    let counts = run_terms(number_from("LABWRIGHT_SIMULATION_SEED", 1), HOURS_IN_CI, Term::hour);
    assert!(counts.rounds > HOURS_IN_CI * 100 && counts.kills > HOURS_IN_CI * 10, "{counts}");
}
