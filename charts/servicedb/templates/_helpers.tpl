{{- define "servicedb.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* 50 characters at most, so that every suffix of this chart fits into a label. */}}
{{- define "servicedb.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "servicedb.operator" -}}
{{ include "servicedb.fullname" . }}-operator
{{- end }}

{{- define "servicedb.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "servicedb.operator" .) .Values.serviceAccount.name }}
{{- else -}}
{{ required "serviceAccount.name is required with serviceAccount.create=false: the name of a ServiceAccount that exists" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "servicedb.selector" -}}
app.kubernetes.io/name: {{ include "servicedb.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "servicedb.labels" -}}
{{ include "servicedb.selector" . }}
{{ include "servicedb.releaseLabels" . }}
{{- end }}

{{- define "servicedb.releaseLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels of a hook's pod: the operator's selectors must not match it. */}}
{{- define "servicedb.hookLabels" -}}
app.kubernetes.io/name: {{ include "servicedb.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{ include "servicedb.releaseLabels" .root }}
{{- end }}

{{- define "servicedb.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}
