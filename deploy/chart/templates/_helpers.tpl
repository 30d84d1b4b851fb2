{{/* Name of everything that a release makes; at most 63 characters, as labels and services demand. */}}
{{- define "eul-serve.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The same with a word behind it, still within 63 characters. Call with (list . "word"). */}}
{{- define "eul-serve.named" -}}
{{- $word := index . 1 -}}
{{- $name := include "eul-serve.name" (index . 0) -}}
{{- printf "%s-%s" ($name | trunc (int (sub 62 (len $word))) | trimSuffix "-") $word -}}
{{- end -}}

{{- define "eul-serve.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "eul-serve.labels" -}}
{{ include "eul-serve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "eul-serve.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Restricted Pod Security Standard, and a root file system that cannot be written. */}}
{{- define "eul-serve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "eul-serve.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The command line of `eul serve`; tests compare it with the options that the command really has. */}}
{{- define "eul-serve.args" -}}
{{- if lt (int .Values.engine.capacity) (int .Values.engine.slots) -}}
{{- fail (printf "engine.capacity is %v: it must be engine.slots (%v) or more, since every bundle of a batch is in memory" .Values.engine.capacity .Values.engine.slots) -}}
{{- end -}}
- --model=/model
- --registry=/registry
- --cache=/cache/bundles
- --policy=/etc/eul/policy/policy.toml
{{- if .Values.secrets.tokens.name }}
- --tokens=/etc/eul/tokens/{{ .Values.secrets.tokens.key }}
{{- end }}
{{- if .Values.secrets.serverKey.name }}
- --key-file=/etc/eul/key/{{ .Values.secrets.serverKey.key }}
{{- end }}
- --listen=0.0.0.0:{{ .Values.server.grpcPort }}
{{- if .Values.secrets.tls.name }}
- --tls-cert=/etc/eul/tls/tls.crt
- --tls-key=/etc/eul/tls/tls.key
{{- else }}
- --insecure
{{- end }}
- --metrics-listen=0.0.0.0:{{ .Values.server.metricsPort }}
- --poll-seconds={{ .Values.server.pollSeconds }}
- --deadline-seconds={{ .Values.server.deadlineSeconds }}
- --grace-seconds={{ int .Values.server.graceSeconds }}
- --max-requests={{ int .Values.server.maxRequests }}
- --max-tenant-requests={{ int .Values.server.maxTenantRequests }}
- --slots={{ int .Values.engine.slots }}
- --capacity={{ int .Values.engine.capacity }}
- --max-rank={{ int .Values.engine.maxRank }}
- --max-batch={{ int .Values.engine.maxBatch }}
{{- with .Values.engine.maxContext }}
- --max-context={{ int . }}
{{- end }}
- --kv-cache-gib={{ .Values.engine.kvCacheGiB }}
- --dtype={{ .Values.engine.dtype }}
{{- range .Values.server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* The name under which clients in the cluster reach the service, and for which a certificate must be. */}}
{{- define "eul-serve.host" -}}
{{ include "eul-serve.name" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Flags of `eul health` through TLS: the authority in the secret, else the system's. */}}
{{- define "eul-serve.healthTls" -}}
{{- with .Values.secrets.tls.caKey }}--ca-cert=/etc/eul/tls/{{ . }}{{ else }}--tls{{ end -}}
{{- end -}}

{{/*
A probe handler. The kubelet's own gRPC probe speaks plain text only, so with TLS the command asks, under the
certificate's name. Call with (list . "service").
*/}}
{{- define "eul-serve.probe" -}}
{{- $root := index . 0 -}}
{{- $service := index . 1 -}}
{{- if $root.Values.secrets.tls.name -}}
exec:
  command:
    - eul
    - health
    - --server={{ include "eul-serve.host" $root }}:{{ $root.Values.server.grpcPort }}
    - {{ include "eul-serve.healthTls" $root }}
    - --timeout=8
    {{- if not $service }}
    - --live
    {{- end }}
periodSeconds: 15
timeoutSeconds: 10
{{- else -}}
grpc:
  port: {{ $root.Values.server.grpcPort }}
  service: {{ $service | quote }}
periodSeconds: 5
timeoutSeconds: 5
{{- end }}
{{- end -}}

{{/* How often the startup probe may fail: startup.seconds over the probe's period, rounded up. */}}
{{- define "eul-serve.startupFailures" -}}
{{- $period := ternary 15 5 (ne .Values.secrets.tls.name "") -}}
{{- div (add .Values.startup.seconds (sub $period 1)) $period -}}
{{- end -}}
