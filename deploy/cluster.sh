#!/bin/sh
# What `make cluster`, `deploy`, `e2e` and `undeploy` do on the cluster of the current kube-context:
#   up                  sees to it that it answers; where no context is chosen, makes a kind cluster
#   images TAG TARGET…  builds targets of the Dockerfile as IMAGES/TARGET:TAG, and brings them to where the nodes find them
#   deploy              installs or upgrades the releases greeter and gateway in NAMESPACE, and waits until they serve
#   undeploy            removes them
set -eu
cd "$(dirname "$0")/.."
namespace=${NAMESPACE:-tandem}
images=${IMAGES:-tandem}

die() { echo "$*" >&2; exit 1; }
need() { for tool; do command -v "$tool" >/dev/null || die "$tool is not installed"; done; }

up() {
  need kubectl
  if context=$(kubectl config current-context 2>/dev/null); then
    kubectl get --raw /readyz --request-timeout=10s >/dev/null 2>&1 ||
      die "the cluster of kube-context $context does not answer: start it, or choose another (kubectl config use-context)"
  else
    need kind docker
    kind create cluster --config deploy/kind.yaml --wait 2m
    context=$(kubectl config current-context)
  fi
  echo "kube-context $context"
}

build() { # TARGET [IMAGE]: prints its id
  docker build -q --target "$1" ${2:+-t "$2"} \
    --build-arg VERSION="$(sed -n 's/^  "version": "\(.*\)",$/\1/p' package.json)" \
    --build-arg REVISION="$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)" .
}

bring() { # IMAGE…
  context=$(kubectl config current-context)
  case $context in
    kind-*) need kind && kind load docker-image "$@" --name "${context#kind-}" ;;
    docker-desktop | orbstack) ;; # the node has what docker has
    *)
      if [ -n "$(kubectl get nodes -l minikube.k8s.io/name -o name)" ]; then
        minikube --profile "$context" image load "$@"
      elif [ -n "${IMAGES:-}" ]; then
        for image; do docker push "$image"; done
      else
        die "the nodes of kube-context $context pull their images: name a registry with IMAGES=registry.example/tandem"
      fi ;;
  esac
}

release() { # NAME TAG
  helm upgrade --install "$1" "helm/$1" --namespace "$namespace" --create-namespace --wait --timeout 5m \
    --set image.repository="$images/$1" --set-string image.tag="$2"
}

case ${1:-} in
  up) up ;;
  images)
    need docker
    tag=$2 all=
    shift 2
    for target; do
      build "$target" "$images/$target:$tag" >/dev/null
      all="$all $images/$target:$tag"
    done
    # shellcheck disable=SC2086 # one word an image
    bring $all ;;
  deploy)
    need docker helm
    for name in greeter gateway; do
      # What the image holds is its tag, so that pods roll when it is another, and only then.
      id=$(build "$name")
      tag=$(echo "${id#sha256:}" | cut -c 1-12)
      docker tag "$id" "$images/$name:$tag"
      bring "$images/$name:$tag"
      release "$name" "$tag"
    done ;;
  undeploy)
    need helm
    helm uninstall gateway greeter --namespace "$namespace" --ignore-not-found --wait ;;
  *) die "usage: $0 up | images TAG TARGET… | deploy | undeploy" ;;
esac
