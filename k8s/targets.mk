.PHONY: test-k8s kubernetes-server

test-k8s: setup ## render the Kubernetes overlays and check them against the schemas of Kubernetes and the operators (needs Go)
	@k8s/validate.sh

kubernetes-server: setup ## build kube-apiserver, once per machine, for tests/kubernetes (needs Go; six minutes of two cores)
	@k8s/apiserver/build.sh
