//! Whether a cluster is set up as labs need it: its configuration in, findings with the command lines that mend them out.
//! Changes nothing, and costs four calls.

use super::engine::{GridEngine, unreadable, words};
use super::hosts::{self, ExecHost};
use crate::scheduler::SchedulerError;
use crate::site::Timing;

/// One thing that is not as labs need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong and what it leads to.
    pub message: String,
    /// What an administrator of the cluster does about it: a command line, or a line to write in its editor.
    pub mend: String,
}

/// How long, after a guest's grace period, a starter may still need to leave nothing behind.
const NOTIFY_MARGIN_SECONDS: u64 = 30;

/// What is wrong with the cluster; nothing, if all is as it should be.
pub fn check(engine: &GridEngine, timing: &Timing) -> Result<Vec<Finding>, SchedulerError> {
    let settings = engine.settings();
    let ask = |tool: &str, arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(std::ffi::OsString::from).collect();
        engine.client.look(tool, &arguments)
    };
    let mut findings = Vec::new();
    let is_root = engine.client.account()?.uid.is_root();
    findings.extend(of_global(&Config::read(&ask("qconf", &["-sconf"])?), is_root));
    let resource = &settings.memory_resource;
    findings.extend(of_scheduler(&Config::read(&ask("qconf", &["-ssconf"])?), resource));
    if let Some(queue) = &settings.queue {
        findings.extend(of_queue(&Config::read(&ask("qconf", &["-sq", queue])?), queue, timing));
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

fn finding(message: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { message: message.into(), mend: mend.into() }
}

fn of_global(config: &Config, is_root: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !config.get("execd_params").contains("INHERIT_ENV=false") {
        let message = "jobs inherit the environment of the execution daemons, with whatever secrets it holds";
        findings.push(finding(message, "qconf -mconf: add `INHERIT_ENV=false` to `execd_params`"));
    }
    let minimum = |key: &str| config.get(key).parse::<u32>().unwrap_or(0);
    if is_root && (minimum("min_uid") > 0 || minimum("min_gid") > 0) {
        let message = "jobs are submitted as root, which the cluster refuses";
        let mend = "name an `account` in site.yaml whose labwright has the rights it needs on hosts, or qconf -mconf: `min_uid 0` and `min_gid 0`";
        findings.push(finding(message, mend));
    }
    if seconds(config.get("reschedule_unknown")).is_some_and(|seconds| seconds > 0) {
        let message = "the cluster starts jobs of a silent host elsewhere; ours ask not to be, but a host that is only cut off still runs them";
        findings.push(finding(message, "qconf -mconf: `reschedule_unknown 00:00:00`"));
    }
    if let Some((first, last)) = config.get("gid_range").split_once('-') {
        let size = last.parse::<u64>().unwrap_or(0).saturating_sub(first.parse().unwrap_or(0)) + 1;
        if size < 300 {
            let message = format!("a host runs at most {size} jobs: each takes a group id of `gid_range`");
            findings.push(finding(
                message,
                "qconf -mconf: a wider `gid_range` of ids that nobody has, such as `65536-69999`",
            ));
        }
    }
    findings
}

fn of_scheduler(config: &Config, resource: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.get("schedd_job_info") != "true" {
        let message = "the scheduler does not tell why jobs wait";
        findings.push(finding(message, "qconf -msconf: `schedd_job_info true`"));
    }
    for (key, what) in [("flush_submit_sec", "submitted"), ("flush_finish_sec", "finished")] {
        if config.get(key).parse::<u32>().unwrap_or(0) == 0 {
            let message = format!("after a job was {what} the scheduler sleeps on until its next turn");
            findings.push(finding(message, format!("qconf -msconf: `{key} 1`")));
        }
    }
    if !config.get("load_formula").contains(resource) {
        let message = "guests are put where the load is low, so a burst of them fills one host before the next";
        findings.push(finding(
            message,
            format!("qconf -msconf: `load_formula -{resource}` puts them where most memory is left"),
        ));
    }
    findings
}

fn of_queue(config: &Config, queue: &str, timing: &Timing) -> Vec<Finding> {
    let mut findings = Vec::new();
    let needed = timing.grace_seconds + NOTIFY_MARGIN_SECONDS;
    let notify = config.get("notify");
    if seconds(notify).is_some_and(|seconds| seconds < needed) {
        let message = format!(
            "queue {queue} kills a job {notify} after its notice, but a guest has {} s to power itself off",
            timing.grace_seconds
        );
        let (minutes, seconds) = (needed / 60, needed % 60);
        findings.push(finding(message, format!("qconf -mattr queue notify 00:{minutes:02}:{seconds:02} {queue}")));
    }
    if config.get("load_thresholds") != "NONE" {
        let message = format!("queue {queue} takes no jobs while its host is busy, as booting guests make it");
        findings.push(finding(message, format!("qconf -mattr queue load_thresholds NONE {queue}")));
    }
    if !matches!(config.get("terminate_method"), "" | "NONE") {
        let message = format!("queue {queue} ends jobs by a way of its own, which may never kill one that hangs");
        findings.push(finding(message, format!("qconf -mattr queue terminate_method NONE {queue}")));
    }
    findings
}

fn of_hosts(hosts: &[ExecHost], resource: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if hosts.is_empty() {
        return vec![finding("the cluster has no execution host", "qconf -ae")];
    }
    let without: Vec<&ExecHost> = hosts.iter().filter(|host| host.resource(resource).is_none()).collect();
    if without.len() == hosts.len() {
        let message = format!("no host has the consumable `{resource}`: every submit would be refused");
        findings
            .push(finding(message, format!("qconf -mc: add the line `{resource} {resource} MEMORY <= YES YES 0 0`")));
    }
    for host in without {
        let memory = host.value("mem_total").unwrap_or("16G");
        let message = format!("host {} does not say how much memory its guests may use", host.name);
        let mend =
            format!("qconf -mattr exechost complex_values {resource}=SIZE {}, SIZE below its {memory}", host.name);
        findings.push(finding(message, mend));
    }
    for host in hosts.iter().filter(|host| host.value("load_avg").is_none()) {
        findings.push(finding(
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
