{{/* The settings shared by the operator and the `helm test` pod, so that the test has the operator's settings. */}}

{{- define "servicedb.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: SERVICEDB_CLUSTER_ID
  value: {{ required "clusterId is required: a name for this cluster, unique among those that share a Vault, of 1 to 40 lower-case letters, digits and '-' (--set clusterId=…)" .Values.clusterId | quote }}
{{- with .Values.watchNamespaces }}
- name: SERVICEDB_WATCH_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
- name: SERVICEDB_LISTEN
  value: {{ printf "%s:%d" .Values.listen.address (int .Values.listen.port) | quote }}
{{ include "servicedb.vault.env" . }}
- name: SERVICEDB_POSTGRES_IMAGES
  {{- $images := list }}
  {{- range $version, $image := .Values.postgres.images }}
  {{- $images = append $images (printf "%s=%s" $version $image) }}
  {{- end }}
  value: {{ join "," $images | quote }}
- name: SERVICEDB_OPERATOR_IMAGE
  value: {{ include "servicedb.image" . | quote }}
{{- with .Values.gateway.image }}
- name: SERVICEDB_GATEWAY_IMAGE
  value: {{ . | quote }}
{{- end }}
- name: SERVICEDB_IMAGE_PULL_POLICY
  value: {{ .Values.image.pullPolicy }}
{{- with .Values.postgres.imagePullSecrets }}
- name: SERVICEDB_IMAGE_PULL_SECRETS
  value: {{ join "," . | quote }}
{{- end }}
- name: SERVICEDB_RUN_AS_USER
  value: {{ int64 .Values.postgres.runAsUser | quote }}
- name: SERVICEDB_FS_GROUP
  value: {{ int64 .Values.postgres.fsGroup | quote }}
- name: SERVICEDB_IMAGE_VOLUMES
  value: {{ .Values.migrations.imageVolumes | quote }}
{{- with .Values.monitoringNamespaces }}
- name: SERVICEDB_MONITORING_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.clients.allowedNamespaces }}
- name: SERVICEDB_CLIENT_NAMESPACES
  value: {{ toJson . | quote }}
{{- end }}
{{- if .Values.metrics.podAnnotations }}
- name: SERVICEDB_SCRAPE_ANNOTATIONS
  value: "true"
{{- end }}
{{- if .Values.metrics.tls.enabled }}
- name: SERVICEDB_METRICS_TLS
  value: "true"
{{- end }}
{{- with .Values.backup.stores }}
- name: SERVICEDB_BACKUP_STORES
  value: {{ toJson . | quote }}
{{- end }}
{{- with .Values.backup.defaultStore }}
- name: SERVICEDB_BACKUP_DEFAULT_STORE
  {{- if not (hasKey $.Values.backup.stores .) }}
  {{- fail (printf "backup.defaultStore is %q, which is not one of backup.stores" .) }}
  {{- end }}
  value: {{ . | quote }}
{{- end }}
{{- with .Values.backup.restoreFrom }}
- name: SERVICEDB_BACKUP_RESTORE_FROM
  {{- range . }}
  {{- if not (hasKey $.Values.backup.stores .store) }}
  {{- fail (printf "backup.restoreFrom names the store %q, which is not one of backup.stores" .store) }}
  {{- end }}
  {{- end }}
  value: {{ toJson . | quote }}
{{- end }}
- name: SERVICEDB_BACKUP_CONCURRENCY
  value: {{ .Values.backup.concurrency | quote }}
- name: SERVICEDB_CONCURRENCY
  value: {{ int .Values.concurrency | quote }}
- name: SERVICEDB_RESYNC_SECONDS
  value: {{ int .Values.resyncSeconds | quote }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "servicedb.volumeMounts" -}}
- name: vault-login
  mountPath: /etc/servicedb/vault-login
  readOnly: true
{{- if include "servicedb.vault.caSource" . }}
- name: vault-ca
  mountPath: /etc/servicedb/vault-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "servicedb.volumes" -}}
- name: vault-login
  {{- include "servicedb.vault.volume" . | nindent 2 }}
{{- $source := include "servicedb.vault.caSource" . }}
{{- if eq $source "secret" }}
- name: vault-ca
  secret:
    secretName: {{ .Values.vault.caSecret.name }}
    items: [{key: {{ .Values.vault.caSecret.key | quote }}, path: ca.crt}]
{{- else if $source }}
- name: vault-ca
  configMap:
    name: {{ default (include "servicedb.vault.caConfigMap" .) .Values.vault.caConfigMap.name }}
    items: [{key: {{ ternary "ca.crt" .Values.vault.caConfigMap.key (not (empty .Values.vault.ca)) | quote }}, path: ca.crt}]
{{- end }}
{{- end }}

{{- define "servicedb.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The pod spec of the chart's pods, without containers and volumes. */}}
{{- define "servicedb.podSpec" -}}
serviceAccountName: {{ include "servicedb.serviceAccount" . }}
automountServiceAccountToken: true
# Otherwise a Service of this namespace could define variables with the operator's names.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
