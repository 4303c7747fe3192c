# Sourced by create.sh and delete.sh: what both need.
# shellcheck shell=bash disable=SC2034  # variables are for those who source it

# A question that fails stops the script, also within $( ).
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=$here/cluster.yaml
dry_run=false
yes=false

# The value of a key of `metadata` in cluster.yaml.
metadata() {
  awk -v key="$1:" '/^[a-z]/ { inside = ($1 == "metadata:") } inside && $1 == key { print $2; exit }' "$config"
}

cluster=$(metadata name)
region=$(metadata region)
namespace=fakenews
# Finds the file system again.
efs_token=$cluster-shared

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

# Every tool that is missing, in one message.
need() {
  local missing=() tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if ((${#missing[@]})); then
    fail "not installed: ${missing[*]} - see deploy/eks/README.md for where to get it"
  fi
}

step() {
  printf '\n== %s\n' "$1"
}

# Show a command, and run it unless this is a dry run.
run() {
  printf '+ %s\n' "$*"
  if [[ $dry_run == false ]]; then
    "$@"
  fi
}

# What AWS answers with text; nothing in a dry run, as if there were nothing yet.
ask() {
  if [[ $dry_run == false ]]; then
    "$@" --region "$region" --output text
  fi
}

# Whether a question is answered at all; never in a dry run.
exists() {
  [[ $dry_run == false ]] && "$@" >/dev/null 2>&1
}

confirm() {
  local answer
  if [[ $dry_run == true || $yes == true ]]; then
    return
  fi
  [[ -t 0 ]] || fail "this is not a terminal: add --yes if you mean it"
  read -r -p "$1 Type the name of the cluster ($cluster) to go on: " answer
  [[ $answer == "$cluster" ]] || fail "nothing was done"
}

file_system() {
  local id
  id=$(ask aws efs describe-file-systems --creation-token "$efs_token" \
    --query 'FileSystems[0].FileSystemId')
  # In text, null is None.
  [[ $id == None ]] || printf '%s' "$id"
}
