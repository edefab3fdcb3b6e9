{{- define "reef.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "reef.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "reef.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "reef.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "reef.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "reef.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is not set: with serviceAccount.create=false it names an account that is there" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "reef.labels" -}}
{{ include "reef.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "reef.selector" -}}
app.kubernetes.io/name: {{ include "reef.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The pods of `reef host`, and no others of the release. */}}
{{- define "reef.hostSelector" -}}
{{ include "reef.selector" . }}
app.kubernetes.io/component: host
{{- end -}}

{{- define "reef.image" -}}
{{- $repository := required "image.repository is not set. No image of Reef is published yet: build one (`make image`), push it to a registry of yours, and set image.repository (and image.digest)" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The host's own default. */}}
{{- define "reef.lease" -}}
{{- printf "reef-%s" .Values.className -}}
{{- end -}}

{{- define "reef.adminAddress" -}}
{{- if contains ":" .Values.admin.address -}}
{{- printf "[%s]:%v" .Values.admin.address .Values.admin.port -}}
{{- else -}}
{{- printf "%s:%v" .Values.admin.address .Values.admin.port -}}
{{- end -}}
{{- end -}}

{{/* The ConfigMap that holds a file of the host: one that is there, or the chart's own; empty if there is none. */}}
{{- define "reef.fileMap" -}}
{{- if .from.existingConfigMap -}}
{{- if .from.file -}}
{{- fail (printf "%s.file and %s.existingConfigMap are both set: the file comes from one of them" .value .value) -}}
{{- end -}}
{{- .from.existingConfigMap -}}
{{- else if .from.file -}}
{{- printf "%s-%s" (include "reef.fullname" .root) .suffix -}}
{{- end -}}
{{- end -}}

{{- define "reef.registriesMap" -}}
{{- include "reef.fileMap" (dict "root" . "from" .Values.registries "value" "registries" "suffix" "registries") -}}
{{- end -}}

{{- define "reef.trustMap" -}}
{{- include "reef.fileMap" (dict "root" . "from" .Values.trustPolicy "value" "trustPolicy" "suffix" "trust-policy") -}}
{{- end -}}
