# Sourced by the scripts beside it: which program is used, where the lab is, and words about each step.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)
namespace=lw-quickstart
account=labwright
PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin

need_root() {
  [ "$(id -u)" -eq 0 ] && return
  echo "error: $1, which takes root" >&2
  echo "hint: sudo $0" >&2
  exit 1
}

# A heading, and how long the step before it took.
step_began=
step() {
  step_done
  printf '\n== %s\n' "$1"
  [ $# -lt 2 ] || printf '   %s\n' "$2"
  step_began=$SECONDS
}
step_done() {
  [ -z "$step_began" ] || printf '   (%s s)\n' "$((SECONDS - step_began))"
  step_began=
}

# The newest program that is there: $LABWRIGHT, one that was built here, or one in the path.
find_labwright() {
  if [ -n "${LABWRIGHT:-}" ]; then
    printf '%s\n' "$LABWRIGHT"
    return
  fi
  local newest= file
  for file in "$project/target/release/labwright" "$project/target/debug/labwright" "$(command -v labwright || true)"; do
    if [ -n "$file" ] && [ -x "$file" ] && { [ -z "$newest" ] || [ "$file" -nt "$newest" ]; }; then newest=$file; fi
  done
  printf '%s\n' "$newest"
}

inside() { ip netns exec "$namespace" "$@"; }
