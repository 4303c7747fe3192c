#!/usr/bin/env bash
# Removes what create.sh has made, but for data. Run again after a failure, it goes on with
# what is left.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<TEXT
Usage: deploy/eks/delete.sh [--data] [--yes] [--dry-run]

Deletes the EKS cluster of deploy/eks/cluster.yaml and all that runs in it. The S3 bucket, the
EFS file system and the disks of PostgreSQL stay, and cost what they hold.

  --data     delete the file system and the disks too; the bucket always stays
  --yes      do not ask
  --dry-run  show the commands, and run none
TEXT
}

data=false
while (($#)); do
  case $1 in
    --data) data=true; shift ;;
    --yes) yes=true; shift ;;
    --dry-run) dry_run=true; shift ;;
    --help | -h) usage; exit ;;
    *) usage >&2; fail "unknown option: $1" ;;
  esac
done
need aws eksctl kubectl

# They keep the network from being deleted.
delete_mount_targets() {
  local target targets
  step "Mount targets of the file system"
  targets=''
  if [[ -n $efs ]]; then
    targets=$(ask aws efs describe-mount-targets --file-system-id "$efs" \
      --query 'MountTargets[].MountTargetId')
  elif [[ $dry_run == true ]]; then
    targets=TARGET
  fi
  for target in $targets; do
    run aws efs delete-mount-target --mount-target-id "$target" --region "$region"
  done
  while [[ -n $efs && -n $(ask aws efs describe-mount-targets --file-system-id "$efs" \
    --query 'MountTargets[].MountTargetId') ]]; do
    sleep 5
  done
}

delete_cluster() {
  step "The cluster $cluster (takes about 15 minutes)"
  if [[ $dry_run == true ]] || exists aws eks describe-cluster --name "$cluster" --region "$region"; then
    # Of this cluster, whatever the current context is.
    run aws eks update-kubeconfig --name "$cluster" --region "$region" --alias "$cluster"
    # A cluster that is broken already need not be tidy.
    run kubectl --context="$cluster" delete namespace "$namespace" --ignore-not-found \
      --timeout=5m || echo "the namespace is left to go with the cluster"
    delete_mount_targets
    run eksctl delete cluster --name "$cluster" --region "$region" --wait \
      --disable-nodegroup-eviction
  else
    echo "there is none"
    delete_mount_targets
    # Of a cluster that was never finished.
    if exists aws cloudformation describe-stacks --region "$region" \
      --stack-name "eksctl-$cluster-cluster"; then
      run eksctl delete cluster --name "$cluster" --region "$region" --wait
    fi
  fi
}

delete_data() {
  local disk disks
  step "Data"
  disks=$(ask aws ec2 describe-volumes --query 'Volumes[].VolumeId' --filters \
    Name=status,Values=available "Name=tag:fakenews/cluster,Values=$cluster")
  if [[ $data == false ]]; then
    echo "kept: the bucket, the file system ${efs:-(there is none)}, disks ${disks:-(there are none)}"
    return
  fi
  if [[ -n $efs || $dry_run == true ]]; then
    run aws efs delete-file-system --file-system-id "${efs:-ID}" --region "$region"
  fi
  for disk in $disks; do
    run aws ec2 delete-volume --volume-id "$disk" --region "$region"
  done
  echo "kept: the bucket; aws s3 rb --force s3://NAME deletes one with all that is in it"
}

echo "This deletes, in $region, the EKS cluster $cluster with its network and all that runs in it."
if [[ $data == true ]]; then
  echo "It deletes all runs, datasets and MLflow's records too: nothing brings them back."
fi
confirm "Delete it?"
efs=$(file_system)
delete_cluster
delete_data
