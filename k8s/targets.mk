.PHONY: test-k8s

test-k8s: setup ## render the Kubernetes overlays and check them against the schemas of Kubernetes and the operators (needs Go)
	@k8s/validate.sh
