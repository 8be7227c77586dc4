//! The readers of Grid Engine's answers, over answers recorded from a real cluster, and over damaged ones.

#[path = "manifests/rounds.rs"]
mod rounds;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use labwright::model::job::{JobId, TaskId};
use labwright::scheduler::grid_engine::{Folded, XmlError, read};
use rounds::{Random, say};

/// All recorded answers: file name to what the tool printed, without the command line before and the exit code behind.
fn samples() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/grid-engine");
    let samples: BTreeMap<String, String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let is_frame =
                |line: &&str| !line.starts_with("$ ") && !line.starts_with("rc=") && !line.starts_with("## ");
            let body = text.lines().filter(is_frame).collect::<Vec<_>>().join("\n");
            (entry.file_name().into_string().unwrap(), body)
        })
        .collect();
    assert_eq!(samples.len(), 77);
    samples
}

fn sample(name: &str) -> String {
    samples().remove(name).unwrap_or_else(|| panic!("there is no sample {name}"))
}

/// What no reader takes for an answer: `qstat`'s text for people, and reservations, which we never ask about.
const PLAIN: [&str; 13] = [
    "ar-qrstat-xml.txt",
    "array-qstat-j.txt",
    "dr-qstat.txt",
    "empty-qstat-j-star.txt",
    "empty-qstat.txt",
    "eqw-out-qstat-j.txt",
    "eqw-wd-qstat-j.txt",
    "held-qstat-j.txt",
    "mixed-qstat-explain-E.txt",
    "mixed-qstat-s-variants.txt",
    "mixed-qstat.txt",
    "pending-qstat-j.txt",
    "running-qstat-j.txt",
];

/// Which reader takes a sample in. One that none does, and that is not known as plain text, has no test.
fn kind(name: &str, text: &str) -> &'static str {
    let kinds =
        [("<job_info", "queue"), ("<detailed_job_info", "reasons"), ("<unknown_jobs", "reasons"), ("<qhost", "hosts")];
    let by_root = kinds.iter().find(|(root, _)| text.contains(root)).map(|(_, kind)| *kind);
    by_root.unwrap_or_else(|| match name {
        _ if name.starts_with("qacct-") => "accounts",
        _ if name.starts_with("err-") => "words",
        _ if PLAIN.contains(&name) => "plain",
        _ => panic!("no test reads {name}: give it a reader, or name it in PLAIN"),
    })
}

#[test]
fn every_sample_is_read_by_its_reader_and_by_no_other() {
    for (name, text) in samples() {
        let read = [
            ("queue", read::queue(&text).is_ok()),
            ("reasons", read::reasons(&text).is_ok()),
            ("hosts", read::hosts(&text).is_ok()),
        ];
        for (reader, is_read) in read {
            assert_eq!(is_read, kind(&name, &text) == reader, "{name} by the reader of {reader}");
        }
        let accounts = read::accounts(&text, "vm_mem");
        // A job that was taken back before it began is in no book.
        let in_books = kind(&name, &text) == "accounts" && name != "qacct-qdel-pending.txt";
        assert_eq!(!accounts.is_empty(), in_books, "{name}: {accounts:?}");
    }
}

#[test]
fn queues() {
    let mut told = String::new();
    for (name, text) in samples().into_iter().filter(|(name, text)| kind(name, text) == "queue") {
        let queue = read::queue(&text).unwrap();
        writeln!(told, "{name}").unwrap();
        for i in &queue.instances {
            let state = if i.state.is_empty() { "-" } else { &i.state };
            writeln!(told, "  {} {}/{} {state} {:?}", i.name, i.slots_used, i.slots, i.resources).unwrap();
        }
        for e in &queue.entries {
            let host = e.host().unwrap_or("-");
            let tasks = format!("{:?}", e.tasks);
            writeln!(
                told,
                "  {} {} {} {}={:?} {host} tasks {tasks} {:?}",
                e.job, e.name, e.owner, e.letters, e.state, e.requests
            )
            .unwrap();
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_task_on_a_host_that_nobody_hears_from_is_unknown() {
    let answer = sample("mixed-qstat-f-xml.txt");
    let queue = read::queue(&answer).unwrap();
    let unknown: Vec<(u64, &str)> = queue
        .entries
        .iter()
        .filter(|entry| entry.state == Folded::Unknown)
        .map(|entry| (entry.job.0, &*entry.letters))
        .collect();
    assert_eq!(unknown, [(62, "r"), (63, "r")]);
    let answer = sample("hostlost-qstat-f-xml.txt");
    let killed = read::queue(&answer).unwrap();
    assert!(killed.entries.iter().all(|entry| entry.letters == "dr" && entry.state == Folded::Unknown));
}

#[test]
fn reasons_are_the_schedulers_words() {
    let reasons = |name: &str| read::reasons(&sample(name)).unwrap();
    assert_eq!(
        reasons("pending-qstat-j-xml.txt").wait(JobId(67)).unwrap(),
        "(-l hostname=ge-h1,vm_mem=5G) cannot run in queue \"all.q@ge-h2\" because it offers only qf:hostname=ge-h2; \
         (-l hostname=ge-h1,vm_mem=5G) cannot run at host \"ge-h1\" because it offers only hc:vm_mem=1.000G"
    );
    assert_eq!(
        reasons("eqw-wd-qstat-j-xml.txt").error(JobId(71), 1).unwrap(),
        "error: can't chdir to /home/ge-alice/nodir: No such file or directory"
    );
    let out = reasons("eqw-out-qstat-j-xml.txt").error(JobId(72), 1).unwrap();
    assert!(out.starts_with("error: can't open output file"), "{out}");
    // What is said of the cluster as a whole serves where nothing is said of the job.
    assert_eq!(
        reasons("held-qstat-j-xml.txt").wait(JobId(1)).unwrap(),
        "queue instance \"all.q@ge-h3\" dropped because it is temporarily not available"
    );
    assert_eq!(reasons("err-qstat-nojob-xml.txt").wait(JobId(999_999)), None);
    assert_eq!(reasons("running-qstat-j-xml.txt").error(JobId(64), 1), None);
}

#[test]
fn hosts() {
    let mut told = String::new();
    for (name, text) in samples().into_iter().filter(|(name, text)| kind(name, text) == "hosts") {
        writeln!(told, "{name}").unwrap();
        for host in read::hosts(&text).unwrap() {
            let memory = host.value("mem_total").unwrap_or("-");
            let (load, rest) = (host.value("load_avg").unwrap_or("-"), host.resource("vm_mem").unwrap_or("-"));
            writeln!(told, "  {} memory {memory} load {load} vm_mem {rest}", host.name).unwrap();
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn accounts() {
    let mut told = String::new();
    for (name, text) in samples().into_iter().filter(|(name, _)| name.starts_with("qacct-")) {
        writeln!(told, "{name}").unwrap();
        for a in read::accounts(&text, "vm_mem") {
            writeln!(
                told,
                "  {} {} {} {} {}..{} {} s, exit {}, failed {} {}",
                a.id, a.name, a.owner, a.host, a.started, a.ended, a.seconds, a.exit_status, a.failed, a.failed_words
            )
            .unwrap();
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_submits_answer_is_its_number() {
    let id = |text: &str| read::submitted(text).map(|job| job.0);
    assert_eq!(id("5\n"), Some(5));
    assert_eq!(id("6.1-300:1\n"), Some(6));
    assert_eq!(id("Welcome to the cluster\n 7.1-2:1 \n"), Some(7));
    assert_eq!(id(""), None);
    assert_eq!(id("Your job 18 (\"sleep\") has been submitted\n"), None);
    assert_eq!(TaskId { job: JobId(6), task: 2 }.to_string(), "6.2");
}

/// Silence leaves open what happened; a refusal is certain.
#[test]
fn silence_and_refusals_are_told_apart() {
    for (name, text) in samples().into_iter().filter(|(name, _)| name.starts_with("err-")) {
        let silent = ["down", "unreachable", "mismatch"].iter().any(|word| name.contains(word));
        assert_eq!(read::is_silence(&text), silent, "{name}");
        let accepted = name.contains("w-v-ok") || name.contains("w-w-unmet");
        if name.starts_with("err-qsub") && !accepted {
            assert!(read::is_refusal(&text), "{name}");
        }
        if silent || accepted {
            assert!(!read::is_refusal(&text), "{name}");
        }
    }
}

/// One damage to an answer: cut, twice, a byte changed, a piece of markup or a huge number put in.
fn damage(text: &mut Vec<u8>, dice: &mut Random) {
    const PIECES: [&str; 14] = [
        "<",
        ">",
        "&",
        "&#x0;",
        "&#99999999;",
        "]]>",
        "<![CDATA[",
        "<!--",
        "<job_list>",
        "</job_list>",
        "</queue_info>",
        "<tasks>1-4294967295:1,1-4294967295:0</tasks>",
        "name='",
        "\u{202e}\u{0}",
    ];
    let at = dice.below(text.len() + 1);
    match dice.below(5) {
        0 => text.truncate(at),
        1 => {
            let end = (at + dice.below(400)).min(text.len());
            let piece = text[at..end].to_vec();
            text.splice(at..at, piece);
        }
        2 if at < text.len() => text[at] ^= 1 << dice.below(8),
        3 => {
            let end = (at + dice.below(60)).min(text.len());
            text.drain(at..end);
        }
        _ => {
            text.splice(at..at, dice.pick(&PIECES).bytes());
        }
    }
}

/// Memory that this process has taken at most, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Damages one sample, or two put together, and reads it with every reader.
fn round(samples: &[String], dice: &mut Random) {
    let mut damaged = dice.pick(samples).clone().into_bytes();
    if dice.below(8) == 0 {
        let other = dice.pick(samples);
        let at = dice.below(damaged.len() + 1);
        damaged.splice(at.., other.bytes());
    }
    for _ in 0..=dice.below(6) {
        damage(&mut damaged, dice);
    }
    let damaged = String::from_utf8_lossy(&damaged);
    if let Ok(queue) = read::queue(&damaged) {
        let tasks: usize = queue.entries.iter().map(|entry| entry.tasks.len()).sum();
        assert!(tasks <= 1_000_000, "{tasks} tasks");
    }
    // No answer of theirs is long enough to need a bound of its own; none may panic.
    drop((read::reasons(&damaged), read::hosts(&damaged), read::accounts(&damaged, "vm_mem")));
    read::submitted(&damaged);
    read::is_silence(&damaged);
    read::is_refusal(&damaged);
}

/// A short walk in every run of the tests; `tests/run campaign fuzz SECONDS xml` goes on for as long. A finding names the
/// seed, and `LABWRIGHT_FUZZ_SEED` repeats it.
#[test]
fn fuzz_xml() {
    const ROUNDS_SHORT: u64 = 2000;
    const GROWTH_MIB_MAX: u64 = 512;
    let samples: Vec<String> = samples().into_values().collect();
    let (before, mut slowest) = (peak_mib(), (Duration::ZERO, 0));
    let rounds = rounds::campaign("xml", ROUNDS_SHORT, |seed, random| {
        let start = Instant::now();
        round(&samples, random);
        slowest = slowest.max((start.elapsed(), seed));
    });
    let growth = peak_mib() - before;
    assert!(growth < GROWTH_MIB_MAX, "{growth} MiB more");
    if let Some(rounds) = rounds {
        let (took, seed) = slowest;
        say(&format!("xml: {rounds} rounds without a finding; slowest {took:?} (seed {seed}), {growth} MiB at most"));
    }
}

#[test]
fn a_bomb_is_refused() {
    let tasks = "<job_list><JB_job_number>1</JB_job_number><tasks>1-4294967295</tasks></job_list>".repeat(3);
    let bomb = format!("<job_info><job_info>{tasks}</job_info></job_info>");
    assert_eq!(read::queue(&bomb).unwrap_err(), XmlError::TooMuch { limit: 1_000_000, what: "tasks" });
}
