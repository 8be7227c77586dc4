//! Whether a cluster is set up as labs need it: its configuration in, findings with the command lines that mend them out.
//! Changes nothing, and costs four calls, and one more per queue.

use super::engine::{GridEngine, unreadable, words};
use super::hosts::{self, ExecHost};
use crate::model::diagnostic::Severity;
use crate::model::site::Timing;
use crate::scheduler::{Finding, SchedulerError};

/// Most queues that are looked at, where the site names none.
const QUEUES_MAX: usize = 20;

/// Attributes of a queue, and requests of a job, that end a job when its time is over.
const TIME_LIMITS: [&str; 4] = ["s_rt", "h_rt", "s_cpu", "h_cpu"];

/// How long, after a guest's grace period, a starter may still need to leave nothing behind.
const NOTIFY_MARGIN_SECONDS: u64 = 30;

/// What is wrong with the cluster; nothing, if all is as it should be.
pub(super) fn check(engine: &GridEngine, timing: &Timing) -> Result<Vec<Finding>, SchedulerError> {
    let settings = engine.settings();
    let ask = |tool: &str, arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(std::ffi::OsString::from).collect();
        engine.client.look(tool, &arguments)
    };
    let mut findings = Vec::new();
    let is_root = engine.client.account()?.uid.is_root();
    findings.extend(of_global(&Config::read(&ask("qconf", &["-sconf"])?), is_root));
    let resource = &settings.memory_resource;
    findings.extend(of_resource(&ask("qconf", &["-sc"])?, resource));
    findings.extend(of_scheduler(&Config::read(&ask("qconf", &["-ssconf"])?), resource));
    let queues = match &settings.queue {
        Some(queue) => vec![queue.clone()],
        None => ask("qconf", &["-sql"])?.split_whitespace().take(QUEUES_MAX).map(str::to_owned).collect(),
    };
    for queue in &queues {
        match ask("qconf", &["-sq", queue]) {
            Ok(text) => findings.extend(of_queue(&Config::read(&text), queue, timing)),
            // The tool's own words for a queue that is not there, which an exit code does not tell from others.
            Err(SchedulerError::Refused { detail, .. }) => {
                let message = format!("jobs ask for queue {queue}, of which the cluster says: {detail}");
                findings.push(error(message, format!("qconf -aq {queue}, or another `queue` in site.yaml")));
            }
            Err(error) => return Err(error),
        }
    }
    let defaults = settings.root.join(&settings.cell).join("common/sge_request");
    // Many clusters have none, and a machine that cannot read it learns of it at its first submit.
    if let Ok(text) = std::fs::read_to_string(&defaults) {
        findings.extend(of_defaults(&text, &defaults));
    }
    if queues.is_empty() {
        findings.push(error("the cluster has no queue: no job would ever run", "qconf -aq all.q"));
    }
    if let Some(project) = &settings.project {
        // The master has answered all the others: what fails here is that there is no project at all.
        let projects = ask("qconf", &["-sprjl"]).unwrap_or_default();
        if !projects.split_whitespace().any(|name| name == project) {
            let message = format!("jobs ask for project {project}, which the cluster does not know");
            findings.push(error(message, "qconf -aprj, or another `project` in site.yaml"));
        }
    }
    // A resource that the cluster does not know makes `qhost` fail, so that all of them are asked for.
    let xml = engine.client.look("qhost", &words(["-F", "-xml"]))?;
    findings.extend(of_hosts(&hosts::parse(&xml).map_err(unreadable("qhost -F -xml"))?, resource));
    Ok(findings)
}

/// What `qconf` prints: a key and its value per line, long ones folded with `\`.
struct Config(Vec<(String, String)>);

impl Config {
    fn read(text: &str) -> Self {
        let unfolded = text.replace("\\\n", " ");
        let pairs = unfolded.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (key, value) = line.trim().split_once(char::is_whitespace)?;
            Some((key.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        });
        Self(pairs.collect())
    }

    fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

pub(super) fn error(message: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, message: message.into(), mend: mend.into() }
}

pub(super) fn warning(message: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, message: message.into(), mend: mend.into() }
}

fn of_global(config: &Config, is_root: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !config.get("execd_params").contains("INHERIT_ENV=false") {
        let message = "jobs inherit the environment of the execution daemons, with whatever secrets it holds";
        findings.push(warning(message, "qconf -mconf: add `INHERIT_ENV=false` to `execd_params`"));
    }
    let minimum = |key: &str| config.get(key).parse::<u32>().unwrap_or(0);
    if is_root && (minimum("min_uid") > 0 || minimum("min_gid") > 0) {
        let message = "jobs are submitted as root, which the cluster refuses";
        let mend = "name an `account` in site.yaml whose labwright has the rights it needs on hosts, or qconf -mconf: `min_uid 0` and `min_gid 0`";
        findings.push(error(message, mend));
    }
    let spool = std::path::Path::new(config.get("execd_spool_dir"));
    // Where it is not, such as on a machine that only submits, there is nothing to say of it.
    if let Ok(Some(file_system)) = crate::files::foreign_file_system(spool) {
        let message = format!(
            "{} is on {file_system}: when that hangs, so do the execution daemons, and every job is unknown",
            spool.display()
        );
        findings.push(warning(message, "qconf -mconf: `execd_spool_dir` on a disk of each host"));
    }
    if seconds(config.get("reschedule_unknown")).is_some_and(|seconds| seconds > 0) {
        let message = "the cluster starts jobs of a silent host elsewhere; ours ask not to be, but a host that is only cut off still runs them";
        findings.push(warning(message, "qconf -mconf: `reschedule_unknown 00:00:00`"));
    }
    if let Some((first, last)) = config.get("gid_range").split_once('-') {
        let size = last.parse::<u64>().unwrap_or(0).saturating_sub(first.parse().unwrap_or(0)) + 1;
        if size < 300 {
            let message = format!("a host runs at most {size} jobs: each takes a group id of `gid_range`");
            findings.push(warning(
                message,
                "qconf -mconf: a wider `gid_range` of ids that nobody has, such as `65536-69999`",
            ));
        }
    }
    findings
}

/// The line of `qconf -sc` that counts memory: name, shortcut, type, relation, requestable, consumable, default, urgency.
fn of_resource(complexes: &str, resource: &str) -> Vec<Finding> {
    let line = format!("{resource} {resource} MEMORY <= YES YES 0 0");
    let known = complexes
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.len() >= 6 && (words[0] == resource || words[1] == resource));
    match known.as_deref() {
        None => {
            let message = format!("the cluster does not know the resource `{resource}`: every submit is refused");
            vec![error(message, format!("qconf -mc: add the line `{line}`"))]
        }
        Some([_, _, kind, _, "YES" | "FORCED", "YES" | "JOB" | "HOST", ..]) if *kind == "MEMORY" => Vec::new(),
        Some(_) => {
            let message =
                format!("`{resource}` is not memory that jobs use up: hosts would be given more guests than fit");
            vec![error(message, format!("qconf -mc: `{line}`"))]
        }
    }
}

fn of_scheduler(config: &Config, resource: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.get("schedd_job_info") != "true" {
        let message = "the scheduler does not tell why jobs wait";
        findings.push(warning(message, "qconf -msconf: `schedd_job_info true`"));
    }
    for (key, what) in [("flush_submit_sec", "submitted"), ("flush_finish_sec", "finished")] {
        if config.get(key).parse::<u32>().unwrap_or(0) == 0 {
            let message = format!("after a job was {what} the scheduler sleeps on until its next turn");
            findings.push(warning(message, format!("qconf -msconf: `{key} 1`")));
        }
    }
    if !config.get("load_formula").contains(resource) {
        let message = "guests are put where the load is low, so a burst of them fills one host before the next";
        findings.push(warning(
            message,
            format!("qconf -msconf: `load_formula -{resource}` puts them where most memory is left"),
        ));
    }
    findings
}

fn of_queue(config: &Config, queue: &str, timing: &Timing) -> Vec<Finding> {
    let mut findings = Vec::new();
    let needed = timing.grace_seconds + NOTIFY_MARGIN_SECONDS;
    // `00:01:30,[node2=0:0:5]`: a value, and others for single hosts.
    for notify in config.get("notify").split(',').map(|value| value.trim().trim_matches(['[', ']'])) {
        let (host, value) = notify.split_once('=').unwrap_or(("", notify));
        if seconds(value).is_none_or(|seconds| seconds >= needed) {
            continue;
        }
        let name = if host.is_empty() { queue.to_owned() } else { format!("{queue}@{host}") };
        let message = format!(
            "queue {name} kills a job {value} after its notice, but a guest has {} s to power itself off",
            timing.grace_seconds
        );
        let (minutes, seconds) = (needed / 60, needed % 60);
        findings.push(error(message, format!("qconf -mattr queue notify 00:{minutes:02}:{seconds:02} {name}")));
    }
    for limit in TIME_LIMITS {
        let value = config.get(limit);
        if !matches!(value, "" | "INFINITY") {
            let message =
                format!("queue {queue} ends every job after {limit} {value}, in the middle of whatever its guest does");
            findings.push(error(message, format!("qconf -mattr queue {limit} INFINITY {queue}")));
        }
    }
    if !matches!(config.get("suspend_thresholds"), "" | "NONE") {
        let message = format!("queue {queue} lets jobs stand still while its host is busy, and their guests with them");
        findings.push(warning(message, format!("qconf -mattr queue suspend_thresholds NONE {queue}")));
    }
    if config.get("load_thresholds") != "NONE" {
        let message = format!("queue {queue} takes no jobs while its host is busy, as booting guests make it");
        findings.push(warning(message, format!("qconf -mattr queue load_thresholds NONE {queue}")));
    }
    if !matches!(config.get("terminate_method"), "" | "NONE") {
        let message = format!("queue {queue} ends jobs by a way of its own, which may never kill one that hangs");
        findings.push(warning(message, format!("qconf -mattr queue terminate_method NONE {queue}")));
    }
    findings
}

/// Options that every `qsub` of the cluster gets.
fn of_defaults(text: &str, file: &std::path::Path) -> Vec<Finding> {
    let options = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join(" ");
    let requests = options.split([' ', ',', '\t']).filter_map(|word| word.split_once('='));
    let limits = requests.filter(|(name, value)| TIME_LIMITS.contains(name) && *value != "INFINITY");
    limits
        .map(|(name, value)| {
            let message = format!(
                "{} gives every job {name}={value}, which ends it in the middle of whatever its guest does",
                file.display()
            );
            error(message, format!("`requests: [{name}=INFINITY]` under `scheduler:` in site.yaml"))
        })
        .collect()
}

fn of_hosts(hosts: &[ExecHost], resource: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if hosts.is_empty() {
        return vec![error("the cluster has no execution host", "qconf -ae")];
    }
    let without = hosts.iter().filter(|host| host.resource(resource).is_none());
    for host in without {
        let memory = host.value("mem_total").unwrap_or("16G");
        let message = format!("host {} does not say how much memory its guests may use", host.name);
        let mend =
            format!("qconf -mattr exechost complex_values {resource}=SIZE {}, SIZE below its {memory}", host.name);
        findings.push(warning(message, mend));
    }
    for host in hosts.iter().filter(|host| host.value("load_avg").is_none()) {
        findings.push(warning(
            format!("nobody hears from host {}", host.name),
            "start sge_execd there, or see its messages file; what ran on it is unknown until then",
        ));
    }
    findings
}

/// `h:m:s` in seconds; nothing of `INFINITY` and the like.
fn seconds(text: &str) -> Option<u64> {
    text.split(':').try_fold(0_u64, |sum, part| Some(sum * 60 + part.trim().parse::<u64>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.mend.as_str()).collect()
    }

    #[test]
    fn a_notice_may_differ_from_host_to_host() {
        let queue = |notify: &str| {
            let text = format!("qname all.q\nnotify {notify}\nload_thresholds NONE\nterminate_method NONE\n");
            of_queue(&Config::read(&text), "all.q", &Timing::default())
        };
        assert_eq!(queue("00:01:30"), []);
        assert_eq!(queue("INFINITY"), []);
        let mend = "qconf -mattr queue notify 00:01:00";
        assert_eq!(told(&queue("0:0:5")), [format!("{mend} all.q")]);
        assert_eq!(told(&queue("00:01:30,[node2=0:0:5],[@old=0:2:0]")), [format!("{mend} all.q@node2")]);
    }

    #[test]
    fn what_ends_a_job_in_its_midst_is_told() {
        let text = "load_thresholds NONE\nh_rt 4:0:0\ns_rt INFINITY\nnotify 0:2:0\n";
        let found = of_queue(&Config::read(text), "all.q", &Timing::default());
        assert_eq!(told(&found), ["qconf -mattr queue h_rt INFINITY all.q"]);
        let defaults = "# -l h_rt=1\n-l os=linux,h_rt=1:0:0 -w e\n-l s_rt=INFINITY\n";
        let found = of_defaults(defaults, std::path::Path::new("sge_request"));
        assert_eq!(told(&found), ["`requests: [h_rt=INFINITY]` under `scheduler:` in site.yaml"]);
    }

    #[test]
    fn memory_must_be_something_that_jobs_use_up() {
        let of = |line: &str| of_resource(&format!("#name shortcut type\n{line}\n"), "vm_mem").len();
        assert_eq!(of("vm_mem vm_mem MEMORY <= YES YES 0 0"), 0);
        assert_eq!(of("vm_mem vm_mem MEMORY <= FORCED JOB 0 0"), 0);
        assert_eq!(of("vm_mem vm_mem MEMORY <= YES NO 0 0"), 1);
        assert_eq!(of("vm_mem vm_mem INT <= YES YES 0 0"), 1);
        assert_eq!(of("h_vmem h_vmem MEMORY <= YES YES 0 0"), 1);
    }

    #[test]
    fn what_is_refused_or_leaks_is_told() {
        let config = |lines: &str| Config::read(&lines.replace('|', "\n"));
        let safe =
            "execd_params INHERIT_ENV=false|gid_range 65536-69999|reschedule_unknown 00:00:00|min_uid 0|min_gid 0";
        assert_eq!(of_global(&config(safe), true), []);
        let as_root = of_global(&config(&safe.replace("min_uid 0", "min_uid 1000")), true);
        assert_eq!(as_root[0].severity, Severity::Error);
        assert_eq!(of_global(&config(&safe.replace("min_uid 0", "min_uid 1000")), false), []);
        let folded = "execd_params ENABLE_ADDGRP_KILL=true, \\|   KEEP_ACTIVE=true|gid_range 65400-65500|reschedule_unknown 0:5:0";
        assert_eq!(of_global(&config(folded), false).len(), 3);
    }
}
