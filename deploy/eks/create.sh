#!/usr/bin/env bash
# The cluster, its storage and the services of deploy/kubernetes. Run again after a failure,
# it goes on with what is missing.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<TEXT
Usage: deploy/eks/create.sh --bucket NAME [--yes] [--dry-run]

Creates the EKS cluster of deploy/eks/cluster.yaml, an S3 bucket, an EFS file system, and the
services of deploy/kubernetes/overlays/eks. It costs money from then on: see README.md.

  --bucket NAME  of S3, for datasets and artefacts; made if it does not exist
  --yes          do not ask
  --dry-run      show the commands, and run none
TEXT
}

bucket=''
while (($#)); do
  case $1 in
    --bucket) bucket=${2:-}; shift 2 || fail "--bucket needs a name" ;;
    --yes) yes=true; shift ;;
    --dry-run) dry_run=true; shift ;;
    --help | -h) usage; exit ;;
    *) usage >&2; fail "unknown option: $1" ;;
  esac
done
[[ $bucket =~ ^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$ ]] ||
  fail "--bucket '$bucket': give a name of 3 to 63 small letters, digits, '.' and '-'"
need aws eksctl kubectl

# The configuration with this bucket in it.
rendered_config() {
  sed "s/BUCKET_NAME/$bucket/g" "$config"
}

with_config() {
  printf '+ %s < cluster.yaml, with the bucket %s\n' "$*" "$bucket"
  if [[ $dry_run == false ]]; then
    rendered_config | "$@"
  fi
}

# Apply a folder of manifests with the names of this account in them.
apply() {
  printf '+ kubectl kustomize %s | sed ... | kubectl apply -f -\n' "$1"
  if [[ $dry_run == false ]]; then
    kubectl kustomize "$1" |
      sed -e "s/ACCOUNT_ID/$account/g; s/BUCKET_NAME/$bucket/g; s/CLUSTER_NAME/$cluster/g" \
        -e "s/FILE_SYSTEM_ID/$efs/g; s/REGION_NAME/$region/g" \
        -e "s|image: \(fakenews-[a-z]*\):|image: $registry/\1:|" |
      kubectl apply --filename=-
  fi
}

make_bucket() {
  step "The bucket $bucket"
  if exists aws s3api head-bucket --bucket "$bucket"; then
    echo "it exists, and stays as it is"
    return
  fi
  run aws s3 mb "s3://$bucket" --region "$region"
  run aws s3api put-public-access-block --bucket "$bucket" --region "$region" \
    --public-access-block-configuration \
    BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true
  # Parts of uploads that were interrupted cost as much as files, and no list shows them.
  run aws s3api put-bucket-lifecycle-configuration --bucket "$bucket" --region "$region" \
    --lifecycle-configuration '{"Rules": [{"ID": "parts", "Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}]}'
}

make_repositories() {
  local image
  for image in "${images[@]}"; do
    step "The repository of the image $image"
    if exists aws ecr describe-repositories --repository-names "$image" --region "$region"; then
      echo "it exists"
    else
      run aws ecr create-repository --repository-name "$image" --region "$region" \
        --image-scanning-configuration scanOnPush=true --tags Key=project,Value=fakenews
    fi
  done
}

make_cluster() {
  step "The cluster $cluster (a new one takes about 20 minutes)"
  if ! exists aws eks describe-cluster --name "$cluster" --region "$region"; then
    with_config eksctl create cluster --config-file=- ||
      fail "eksctl failed, see above: run this again, or delete.sh if it says that a stack is in the way"
  else
    echo "it exists: what is missing is added"
    run aws eks wait cluster-active --name "$cluster" --region "$region"
    with_config eksctl utils associate-iam-oidc-provider --config-file=- --approve
    with_config eksctl create iamserviceaccount --config-file=- --approve
    with_config eksctl create nodegroup --config-file=-
    with_config eksctl create addon --config-file=-
  fi
  run aws eks update-kubeconfig --name "$cluster" --region "$region" --alias "$cluster"
  run kubectl config use-context "$cluster"
}

make_file_system() {
  local group subnet subnets taken state=''
  step "The file system that all nodes share"
  efs=$(file_system)
  if [[ -n $efs ]]; then
    echo "it exists: $efs"
  else
    run aws efs create-file-system --creation-token "$efs_token" --region "$region" \
      --encrypted --throughput-mode elastic --tags "Key=Name,Value=$efs_token" Key=project,Value=fakenews
    efs=$(file_system)
  fi
  while [[ $dry_run == false && $state != available ]]; do
    [[ -z $state ]] || sleep 3
    state=$(ask aws efs describe-file-systems --file-system-id "$efs" \
      --query 'FileSystems[0].LifeCycleState')
  done
  # Nodes and mount targets are both in the cluster's own group, whose members may talk.
  group=$(ask aws eks describe-cluster --name "$cluster" \
    --query cluster.resourcesVpcConfig.clusterSecurityGroupId)
  subnets=$(ask aws ec2 describe-subnets --query 'Subnets[].SubnetId' --filters \
    "Name=tag:alpha.eksctl.io/cluster-name,Values=$cluster" \
    Name=tag:kubernetes.io/role/internal-elb,Values=1)
  taken=$(ask aws efs describe-mount-targets --file-system-id "$efs" \
    --query 'MountTargets[].SubnetId')
  for subnet in ${subnets:-SUBNET}; do
    if [[ " ${taken//[[:space:]]/ } " == *" $subnet "* ]]; then
      continue
    fi
    run aws efs create-mount-target --file-system-id "${efs:-ID}" --subnet-id "$subnet" \
      --security-groups "${group:-GROUP}" --region "$region"
  done
}

make_services() {
  step "The services"
  apply "$here/../kubernetes/overlays/eks"
  if exists kubectl get secret fakenews-postgres --namespace="$namespace"; then
    echo "the password of PostgreSQL exists"
  else
    echo "+ a random password | kubectl create secret generic fakenews-postgres --from-file=password=/dev/stdin"
    if [[ $dry_run == false ]]; then
      head -c 32 /dev/urandom | base64 | tr -d '\n=+/' |
        kubectl create secret generic fakenews-postgres --namespace="$namespace" \
          --from-file=password=/dev/stdin
    fi
  fi
  apply "$here/autoscaler"
  run kubectl rollout status statefulset/fakenews-postgres --namespace="$namespace" --timeout=10m
}

cat <<TEXT
This makes, in $region:
  the S3 bucket $bucket, and a repository of images in ECR
  the EKS cluster $cluster, with its VPC, a NAT gateway, 2 nodes, and groups of training
    nodes that are empty until a training needs them
  an EFS file system
  PostgreSQL, MLflow and the autoscaler in the cluster
It costs money from then on, also when nothing is trained; delete.sh ends that.
TEXT
confirm "Make all this?"
account=$(ask aws sts get-caller-identity --query Account)
registry=${account:-ACCOUNT}.dkr.ecr.$region.amazonaws.com
images=(fakenews-train fakenews-mlflow)
efs=''
make_bucket
make_repositories
make_cluster
make_file_system
make_services
cat <<TEXT

Done. MLflow starts, and trainings can, when the images are there:
  aws ecr get-login-password --region $region | docker login --username AWS --password-stdin $registry
  for image in ${images[*]}; do
    docker tag \$image:TAG $registry/\$image:TAG && docker push $registry/\$image:TAG
  done
TAG, and for your trainings $registry/NAME as newName, stand in
deploy/kubernetes/components/images/kustomization.yaml.
MLflow: kubectl port-forward --namespace=$namespace service/fakenews-mlflow 5000
TEXT
