// Renders kustomize folders and decodes every document strictly into the Go types that Kubernetes and the operators
// publish: a field that they do not know is an error. Kinds without Go types here (Strimzi) are written to a file for
// another check, and so are Kubernetes' own, whose schemas know which fields are required.
//
//	validate -keda FOLDER_OF_KEDA -out FOLDER OVERLAY…
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	cnpg "github.com/cloudnative-pg/cloudnative-pg/api/v1"
	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// Types by apiVersion and kind.
var types = map[string]func() any{
	"apps/v1 Deployment":                      func() any { return &apps.Deployment{} },
	"autoscaling/v2 HorizontalPodAutoscaler":  func() any { return &autoscaling.HorizontalPodAutoscaler{} },
	"apps/v1 StatefulSet":                     func() any { return &apps.StatefulSet{} },
	"batch/v1 Job":                            func() any { return &batch.Job{} },
	"keda.sh/v1alpha1 ScaledObject":           func() any { return &keda.ScaledObject{} },
	"monitoring.coreos.com/v1 PodMonitor":     func() any { return &monitoring.PodMonitor{} },
	"monitoring.coreos.com/v1 PrometheusRule": func() any { return &monitoring.PrometheusRule{} },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return &monitoring.ServiceMonitor{} },
	"gateway.networking.k8s.io/v1 HTTPRoute":  func() any { return &gateway.HTTPRoute{} },
	"networking.k8s.io/v1 Ingress":            func() any { return &networking.Ingress{} },
	"networking.k8s.io/v1 NetworkPolicy":      func() any { return &networking.NetworkPolicy{} },
	"policy/v1 PodDisruptionBudget":           func() any { return &policy.PodDisruptionBudget{} },
	"postgresql.cnpg.io/v1 Cluster":           func() any { return &cnpg.Cluster{} },
	"v1 ConfigMap":                            func() any { return &core.ConfigMap{} },
	"v1 Namespace":                            func() any { return &core.Namespace{} },
	"v1 PersistentVolumeClaim":                func() any { return &core.PersistentVolumeClaim{} },
	"v1 Secret":                               func() any { return &core.Secret{} },
	"v1 Service":                              func() any { return &core.Service{} },
	"v1 ServiceAccount":                       func() any { return &core.ServiceAccount{} },
}

// Groups whose kinds are no part of Kubernetes, so that its schemas do not know them.
var operators = regexp.MustCompile(`^(gateway\.networking\.k8s\.io|keda\.sh|monitoring\.coreos\.com|postgresql\.cnpg\.io|kafka\.strimzi\.io)/`)

var kedaName = regexp.MustCompile(`keda:"name=(\w+)`)

func main() {
	kedaFolder := flag.String("keda", "", "folder of KEDA's source, whose Kafka scaler knows the names of a trigger's metadata")
	out := flag.String("out", ".", "folder for the rendered documents")
	flag.Parse()
	if err := run(*kedaFolder, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(kedaFolder, out string, overlays []string) error {
	source, err := os.ReadFile(filepath.Join(kedaFolder, "pkg", "scalers", "kafka_scaler.go"))
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, match := range kedaName.FindAllSubmatch(source, -1) {
		known[string(match[1])] = true
	}
	var failures []error
	for _, overlay := range overlays {
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), overlay)
		if err != nil {
			return fmt.Errorf("%s: %w", overlay, err)
		}
		name := filepath.Base(overlay)
		var kubernetes, strimzi []string
		for _, document := range resources.Resources() {
			text, err := document.AsYAML()
			if err != nil {
				return err
			}
			if err := check(document, text, known); err != nil {
				failures = append(failures, fmt.Errorf("%s: %s %s: %w", name, document.GetKind(), document.GetName(), err))
			}
			switch version := document.GetApiVersion(); {
			case strings.HasPrefix(version, "kafka.strimzi.io/"):
				strimzi = append(strimzi, string(text))
			case !operators.MatchString(version):
				kubernetes = append(kubernetes, string(text))
			}
		}
		for kind, documents := range map[string][]string{"kubernetes": kubernetes, "strimzi": strimzi} {
			path := filepath.Join(out, name+"."+kind+".yaml")
			if err := os.WriteFile(path, []byte(strings.Join(documents, "---\n")), 0o600); err != nil {
				return err
			}
		}
		fmt.Printf("%s: %d documents, %d of them Strimzi's\n", name, resources.Size(), len(strimzi))
	}
	return errors.Join(failures...)
}

func check(document *resource.Resource, text []byte, kedaNames map[string]bool) error {
	kind := document.GetApiVersion() + " " + document.GetKind()
	if strings.HasPrefix(kind, "kafka.strimzi.io/") {
		return nil
	}
	create, ok := types[kind]
	if !ok {
		return fmt.Errorf("no type is known for %s", kind)
	}
	object := create()
	if err := yaml.UnmarshalStrict(text, object); err != nil {
		return err
	}
	if scaled, ok := object.(*keda.ScaledObject); ok {
		return checkTriggers(scaled, kedaNames)
	}
	return nil
}

func checkTriggers(scaled *keda.ScaledObject, names map[string]bool) error {
	for _, trigger := range scaled.Spec.Triggers {
		if trigger.Type != "kafka" {
			return fmt.Errorf("trigger %q is not checked here", trigger.Type)
		}
		for name := range trigger.Metadata {
			if !names[name] {
				return fmt.Errorf("KEDA's Kafka scaler knows no %q", name)
			}
		}
	}
	return nil
}
