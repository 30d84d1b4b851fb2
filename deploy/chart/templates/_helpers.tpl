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
- --model=/model
- --registry=/registry
- --cache=/cache/bundles
- --policy=/etc/eul/policy/policy.toml
{{- if .Values.secrets.tokens.name }}
- --tokens=/etc/eul/tokens/{{ .Values.secrets.tokens.key }}
{{- end }}
{{- if .Values.secrets.serverKey.name }}
- --server-key=/etc/eul/key/{{ .Values.secrets.serverKey.key }}
{{- end }}
- --listen=0.0.0.0:{{ .Values.server.grpcPort }}
{{- if .Values.secrets.tls.name }}
- --tls-cert=/etc/eul/tls/tls.crt
- --tls-key=/etc/eul/tls/tls.key
{{- else }}
- --plaintext
{{- end }}
- --metrics-listen=0.0.0.0:{{ .Values.server.metricsPort }}
- --poll-seconds={{ .Values.server.pollSeconds }}
- --drain-seconds={{ .Values.server.drainSeconds }}
- --slots={{ .Values.engine.slots }}
- --capacity={{ .Values.engine.capacity }}
- --max-rank={{ .Values.engine.maxRank }}
- --max-context={{ .Values.engine.maxContext }}
{{- range .Values.server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* A probe handler: the kubelet's own gRPC probe speaks plain text only, so with TLS the command asks. Call with (list . "service"). */}}
{{- define "eul-serve.probe" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.secrets.tls.name -}}
exec:
  command: [eul, health, "--server=127.0.0.1:{{ $root.Values.server.grpcPort }}", "--tls"]
{{- else -}}
grpc:
  port: {{ $root.Values.server.grpcPort }}
  service: {{ index . 1 | quote }}
{{- end }}
{{- end -}}
