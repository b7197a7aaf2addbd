{{/* The source of the authority of Vault's certificate: "", configMap or secret; two are refused. */}}
{{- define "servicedb.vault.caSource" -}}
{{- $sources := list }}
{{- if .Values.vault.ca }}{{ $sources = append $sources "vault.ca" }}{{ end }}
{{- if .Values.vault.caConfigMap.name }}{{ $sources = append $sources "vault.caConfigMap" }}{{ end }}
{{- if .Values.vault.caSecret.name }}{{ $sources = append $sources "vault.caSecret" }}{{ end }}
{{- if gt (len $sources) 1 }}
{{- fail (printf "%s are given together: give the authority of Vault's certificate in one of them" (join " and " $sources)) }}
{{- end }}
{{- if has "vault.caSecret" $sources -}}
secret
{{- else if $sources -}}
configMap
{{- end }}
{{- end }}

{{- define "servicedb.vault.caConfigMap" -}}
{{ include "servicedb.fullname" . }}-vault-ca
{{- end }}

{{/* The mount at which the operator logs in; default: the one that its databases use. */}}
{{- define "servicedb.vault.authMount" -}}
{{- $mounts := dict "kubernetes" .Values.vault.kubernetesMount "approle" .Values.vault.approleMount "jwt" "jwt" }}
{{- default (get $mounts .Values.vault.auth.method) .Values.vault.auth.mount }}
{{- end }}

{{/* The folder of the credential of the operator's own login. */}}
{{- define "servicedb.vault.volume" -}}
{{- $auth := .Values.vault.auth -}}
{{- if has $auth.method (list "kubernetes" "jwt") -}}
projected:
  defaultMode: 0440
  sources:
  - serviceAccountToken:
      path: token
      {{- with $auth.audience }}
      audience: {{ . | quote }}
      {{- end }}
      expirationSeconds: {{ int $auth.tokenExpirationSeconds }}
{{- else if eq $auth.method "approle" -}}
secret:
  secretName: {{ required "vault.auth.approleSecret is required with vault.auth.method=approle: a Secret in the operator's namespace with the keys role-id and secret-id" $auth.approleSecret }}
  defaultMode: 0440
{{- else -}}
secret:
  secretName: {{ required "vault.auth.tokenSecret.name is required with vault.auth.method=token-file: a Secret in the operator's namespace with a Vault token" $auth.tokenSecret.name }}
  defaultMode: 0440
  items: [{key: {{ $auth.tokenSecret.key | quote }}, path: token}]
{{- end }}
{{- end }}

{{- define "servicedb.vault.env" -}}
- name: SERVICEDB_VAULT_ADDRESS
  value: {{ required "vault.address is required: Vault's address, such as https://vault.vault.svc:8200 (--set vault.address=…)" .Values.vault.address | quote }}
{{- with .Values.vault.namespace }}
- name: SERVICEDB_VAULT_NAMESPACE
  value: {{ . | quote }}
{{- end }}
{{- if include "servicedb.vault.caSource" . }}
- name: SERVICEDB_VAULT_CA_FILE
  value: /etc/servicedb/vault-ca/ca.crt
{{- end }}
- name: SERVICEDB_VAULT_AUTH_METHOD
  value: {{ .Values.vault.auth.method }}
{{- if ne .Values.vault.auth.method "token-file" }}
- name: SERVICEDB_VAULT_AUTH_MOUNT
  value: {{ include "servicedb.vault.authMount" . | quote }}
{{- end }}
{{- if has .Values.vault.auth.method (list "kubernetes" "jwt") }}
- name: SERVICEDB_VAULT_AUTH_ROLE
  value: {{ .Values.vault.auth.role | quote }}
{{- end }}
{{- if eq .Values.vault.auth.method "approle" }}
- name: SERVICEDB_VAULT_APPROLE_DIR
  value: /etc/servicedb/vault-login
{{- else }}
- name: SERVICEDB_VAULT_TOKEN_FILE
  value: /etc/servicedb/vault-login/token
{{- end }}
- name: SERVICEDB_VAULT_APPROLE_MOUNT
  value: {{ .Values.vault.approleMount | quote }}
- name: SERVICEDB_VAULT_KUBERNETES_MOUNT
  value: {{ .Values.vault.kubernetesMount | quote }}
- name: SERVICEDB_VAULT_KV_MOUNT
  value: {{ .Values.vault.kvMount | quote }}
{{- with .Values.vault.databaseMount }}
- name: SERVICEDB_VAULT_DATABASE_MOUNT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.vault.databaseClients }}
- name: SERVICEDB_VAULT_DATABASE_CLIENTS
  value: {{ toJson . | quote }}
{{- end }}
- name: SERVICEDB_VAULT_TIMEOUT_SECONDS
  value: {{ int .Values.vault.timeoutSeconds | quote }}
- name: SERVICEDB_DELETION_DEADLINE_SECONDS
  value: {{ int .Values.vault.deletionDeadlineSeconds | quote }}
{{- end }}
