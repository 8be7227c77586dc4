# Sourced by the scripts beside it: labs of any size in a scratch folder, and figures as one line each.
# Needs $labwright, the release binary. Figures are medians of $runs runs; the machines are noisy, so CPU stands beside
# wall, and a bar is shown, never enforced.

LC_ALL=C
TIMEFORMAT='%3R %3U %3S'
runs=${RUNS:-5}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/labwright-bench.XXXXXX")
chmod 755 "$scratch" # the account that runs guests must get to its disks
samples=$scratch/samples
trap 'rm -rf -- "$scratch"' EXIT

fail() { echo "error: $*" >&2; exit 1; }

# What, measured, CPU, bar.
figure() { printf '%-58s %11s   cpu %9s   bar %s\n' "$1" "$2" "${3:--}" "${4:--}"; }

# Median of column $1 of the samples, in milliseconds.
median() { awk -v column="$1" '{ print $column }' "$samples" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# Runs a command once and adds its wall and CPU milliseconds to the samples. Its output is kept for `said`.
sample() {
  { time "$@" >"$scratch/out" 2>"$scratch/err" || echo failed >"$scratch/failed"; } 2>"$scratch/time"
  if [ -e "$scratch/failed" ]; then
    cat "$scratch/out" "$scratch/err" >&2
    fail "this went wrong: $*"
  fi
  awk '{ printf "%.0f %.0f\n", $1 * 1000, ($2 + $3) * 1000 }' "$scratch/time" >>"$samples"
}

# Measures a command: WHAT BAR COMMAND...
measure() {
  local what=$1 bar=$2
  shift 2
  : >"$samples"
  "$@" >/dev/null 2>&1 || true # the first run finds cold files
  for ((i = 0; i < runs; i++)); do sample "$@"; done
  figure "$what" "$(median 1) ms" "$(median 2) ms" "$bar"
}

# Measures the most memory a command has resident: WHAT BAR COMMAND...
resident() {
  local what=$1 bar=$2
  shift 2
  /usr/bin/time -o "$scratch/time" -f %M "$@" >/dev/null 2>&1 || fail "this went wrong: $*"
  figure "$what" "$(awk 'END { printf "%.0f MiB", $1 / 1024 }' "$scratch/time")" - "$bar"
}

# Seconds in brackets behind some words of the last command's progress lines, as milliseconds.
said() { sed -n "s/^ *[0-9]* $1.* (\([0-9.]*\) s)\$/\1/p" "$scratch/err" | awk '{ sum += $1 } END { printf "%.0f", sum * 1000 }'; }

# A lab with a site of its own: FOLDER COUNT STATE, one vm per line of a roster. A vm group holds a /16, so there is one
# family with a roster and a group of its own for every 50,000 vms.
make_lab() {
  local folder=$1 count=$2 state=$3 part=1 first last
  mkdir -p "$folder/images"
  qemu-img create -q -f qcow2 "$folder/images/tiny.qcow2" 64M
  for kind in user_groups vm_groups vms; do echo "$kind:" >"$scratch/$kind"; done
  for ((first = 1; first <= count; first += 50000, part++)); do
    last=$((first + 49999 < count ? first + 49999 : count))
    { echo user; seq -f 'u%06g' "$first" "$last"; } >"$folder/students$part.csv"
    echo "  students$part: { roster: students$part.csv }" >>"$scratch/user_groups"
    echo "  lab$part: { ip_range: 10.$part.0.2-10.$part.255.254, subnet: 10.$part.0.0/16, gateway: 10.$part.0.1, mac_prefix: 'de:af' }" \
      >>"$scratch/vm_groups"
    echo "  exam$part: { derive: tiny, for_each: students$part, vm_group: lab$part, name: '{user}-tiny', isolated: true, state: $state }" \
      >>"$scratch/vms"
  done
  {
    echo 'lab: bench'
    echo 'templates: { tiny: { owner: badmin, vm_group: lab1, disks: [{ image: images/tiny.qcow2 }], memory: 128M } }'
    cat "$scratch/user_groups" "$scratch/vm_groups" "$scratch/vms"
  } >"$folder/lab.yaml"
  mkdir -p "$folder.site"
  cat >"$folder.site/site.yaml" <<END
state: state.db
storage: { root: storage }
scheduler: { local: { folder: queue } }
service_user: nobody
network: { dhcp: none, dhcp_servers: [] }
END
}

# A cluster whose jobs all run from the moment when they are submitted, for the lab in FOLDER.
make_cluster() {
  local site=$1.site
  mkdir -p "$site/tools"
  cat >"$site/tools/qsub" <<'END'
#!/bin/sh
# Takes note of the job's name and of how many tasks it has: -N NAME, -t 1-TASKS.
while [ $# -gt 0 ]; do
  case $1 in -N) name=$2 ;; -t) tasks=${2#1-} ;; esac
  shift
done
tools=$(dirname "$0")
jobs=$(cat "$tools"/job.* 2>/dev/null | wc -l)
echo "$name $tasks" >"$tools/job.$((jobs + 1))"
"$tools/write-queue"
echo "$((jobs + 1)).1-$tasks:1"
END
  printf '#!/bin/sh\nexec cat "$(dirname "$0")/queue.xml"\n' >"$site/tools/qstat"
  cat >"$site/tools/write-queue" <<'END'
#!/bin/sh
# Writes what the queue says, 40 guests to a host. With one program: a queue that takes longer with each job would be measured.
tools=$(dirname "$0")
{
  printf "<?xml version='1.0'?>\n<job_info>\n  <queue_info>\n"
  awk -v owner=root '
      {
        job = FILENAME; sub(".*[.]", "", job); name = $1; last = ""
        for (task = 1; task <= $2; task++) {
          host = "node" int((task - 1) / 40)
          if (host != last) { if (last) print "</Queue-List>"; queue(last = host) }
          write_task(task)
        }
        print "    </Queue-List>"
      }
      function queue(host) {
        print "    <Queue-List>\n      <name>vm.q@" host "</name>\n      <qtype>BI</qtype>\n      <slots_used>40</slots_used>"
        print "      <slots_resv>0</slots_resv>\n      <slots_total>40</slots_total>\n      <load_avg>1.5</load_avg>"
        print "      <arch>lx-amd64</arch>\n      <resource name=\"vm_mem\" type=\"hc\">24.000G</resource>"
      }
      function write_task(task) {
        print "      <job_list state=\"running\">\n        <JB_job_number>" job "</JB_job_number>"
        print "        <JAT_prio>0.55500</JAT_prio>\n        <JB_name>" substr(name, 1, 10) "</JB_name>"
        print "        <JB_owner>" owner "</JB_owner>\n        <state>r</state>"
        print "        <JAT_start_time>2027-01-12T08:40:12</JAT_start_time>\n        <slots>1</slots>\n        <tasks>" task "</tasks>"
        print "        <full_job_name>" name "</full_job_name>\n        <master_queue>vm.q@" host "</master_queue>"
        print "        <hard_request name=\"vm_mem\" resource_contribution=\"0.000000\">192M</hard_request>"
        print "        <hard_req_queue>vm.q</hard_req_queue>\n        <binding>NONE</binding>\n      </job_list>"
      }
' "$tools"/job.*
  printf '  </queue_info>\n  <job_info>\n  </job_info>\n</job_info>\n'
} >"$tools/queue.new.$$"
mv "$tools/queue.new.$$" "$tools/queue.xml"
END
  printf "<?xml version='1.0'?>\n<job_info>\n  <queue_info>\n  </queue_info>\n  <job_info>\n  </job_info>\n</job_info>\n" \
    >"$site/tools/queue.xml"
  chmod +x "$site/tools/qsub" "$site/tools/qstat" "$site/tools/write-queue"
  sed -i "s|^scheduler: .*|scheduler: { grid_engine: { root: tools, binaries: tools } }|" "$site/site.yaml"
}

# Writes what starters report once every job of the lab in FOLDER runs.
play_starters() {
  local site=$1.site
  find "$site/storage/runs" -name spec.json | awk -v at="$(date -u +%Y-%m-%dT%H:%M:%SZ)" '{
    folder = substr($0, 1, length($0) - length("/spec.json")); run = folder; sub(".*/", "", run)
    number = run; sub(".*-", "", number)
    low = number % 250 + 2; high = int(number / 250) % 250; host = "node" int((number - 1) / 40); report = folder "/report.jsonl"
    begin = "{\"run\":\"" run "\",\"generation\":1,\"at\":\"" at "\",\"event\":"
    print begin "\"prepared\",\"host\":\"" host "\"}" >report
    print begin "\"networked\",\"tap\":\"lw" number "\"}" >report
    print begin "\"running\",\"host\":\"" host "\",\"pid\":" number + 1000 ",\"tap\":\"lw" number "\",\"vnc\":\"127.0.0.1:" 5900 + number % 40 "\",\"ip\":\"10.64." high "." low "\",\"mac\":\"de:af:de:af:" sprintf("%02x:%02x", high, low) "\",\"isolated\":true,\"accel\":\"kvm\",\"clock_offset_ms\":1}" >report
    print begin "\"ready\"}" >report
    print begin "\"heartbeat\"}" >report
    close(report)
  }'
}

# The same number of vms, each written out as people write one: FOLDER COUNT.
make_written_out() {
  local folder=$1 count=$2
  mkdir -p "$folder/images"
  qemu-img create -q -f qcow2 "$folder/images/tiny.qcow2" 64M
  {
    cat <<END
lab: bench
user_groups: { students: { members: [$(seq -s ', ' -f 'u%05g' "$count")] } }
vm_groups: { lab1: { ip_range: 10.64.0.2-10.64.255.254, subnet: 10.64.0.0/16, gateway: 10.64.0.1 } }
templates: { tiny: { owner: badmin, vm_group: lab1, disks: [{ image: images/tiny.qcow2 }], memory: 128M } }
vms:
END
    seq -f '%05g' "$count" | awk '{
      print "  u" $1 "-tiny:"
      print "    # Seat " $1 " of the lecture hall; ask the assistants before you change anything of it in the week of the exam."
      print "    description: >-"
      for (line = 0; line < 6; line++)
        print "      The machine of student u" $1 " for the practical exam in local area networks, as it is handed out"
      print "    derive: tiny"
      print "    owner: u" $1
      print "    vm_group: lab1"
      print "    memory: 256M"
      print "    cpus: 1"
      print "    isolated: true"
      print "    state: on_demand"
      print "    restart: on_failure"
    }'
  } >"$folder/lab.yaml"
}

on_site() { local folder=$1; shift; "$labwright" --site "$folder.site/site.yaml" "$@"; }

# Makes the lab's state and applies it.
apply_lab() {
  "$labwright" --site "$1.site/site.yaml" state init >/dev/null 2>&1 || fail "no state could be made for $1"
  "$labwright" --site "$1.site/site.yaml" apply "$1" --yes >"$scratch/out" 2>"$scratch/err" ||
    { cat "$scratch/out" "$scratch/err" >&2; fail "the lab in $1 could not be applied"; }
}
