# Sourced by the scripts beside it: where the lab is, and what it takes of labs/quickstart. The lab runs from a copy, in which each
# student has a key.

lab=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=labs/quickstart/common.sh
. "$lab/../quickstart/common.sh"
made=$project/target/debian
here=$made/lab
namespace=lw-debian
