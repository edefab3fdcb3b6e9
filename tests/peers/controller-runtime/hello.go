package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Hello, as its CRD says; DeepCopy as controller-gen would generate it.
type Hello struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   HelloSpec   `json:"spec"`
	Status HelloStatus `json:"status,omitempty"`
}

type HelloSpec struct {
	Text string `json:"text"`
}

type HelloStatus struct {
	Text       string             `json:"text,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

type HelloList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Hello `json:"items"`
}

// AddToScheme makes the kind known.
func AddToScheme(scheme *runtime.Scheme) {
	version := schema.GroupVersion{Group: "demo.reef.dev", Version: "v1"}
	scheme.AddKnownTypes(version, &Hello{}, &HelloList{})
	metav1.AddToGroupVersion(scheme, version)
}

func (in *Hello) DeepCopyInto(out *Hello) {
	*out = *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	if in.Status.Conditions != nil {
		out.Status.Conditions = make([]metav1.Condition, len(in.Status.Conditions))
		for i := range in.Status.Conditions {
			in.Status.Conditions[i].DeepCopyInto(&out.Status.Conditions[i])
		}
	}
}

func (in *Hello) DeepCopyObject() runtime.Object {
	out := new(Hello)
	in.DeepCopyInto(out)
	return out
}

func (in *HelloList) DeepCopyObject() runtime.Object {
	out := &HelloList{TypeMeta: in.TypeMeta}
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Hello, len(in.Items))
	for i := range in.Items {
		in.Items[i].DeepCopyInto(&out.Items[i])
	}
	return out
}
