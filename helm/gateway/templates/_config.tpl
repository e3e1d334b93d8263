{{/* The gateway's YAML file, with what `backup` and `tls` stand for. */}}
{{- define "gateway.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $first := first $config.upstreams -}}
{{- with .Values.backup -}}
{{- $_ := set $first "targets" (append $first.targets (printf "kubernetes:///%s:grpc" .)) -}}
{{- end -}}
{{- with .Values.tls -}}
{{- if .enabled -}}
{{- $tls := dict "ca" "/etc/tandem/tls/ca.crt" -}}
{{- if .clientCertificate -}}
{{- $tls = merge $tls (dict "cert" "/etc/tandem/tls/tls.crt" "key" "/etc/tandem/tls/tls.key") -}}
{{- end -}}
{{- with .serverName }}{{ $_ := set $tls "serverName" . }}{{ end -}}
{{- $_ := set $first "tls" (mergeOverwrite $tls ($first.tls | default dict)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The `kubernetes:///` targets: a YAML list of service, namespace and port, under `targets`. */}}
{{- define "gateway.kubernetesTargets" -}}
targets:
{{- range (include "gateway.config" . | fromYaml).upstreams }}
{{- range .targets }}
{{- if hasPrefix "kubernetes:///" . }}
{{- $name := regexReplaceAll ":[^:]+$" (trimPrefix "kubernetes:///" .) "" | splitList "." }}
  - service: {{ index $name 0 }}
    namespace: {{ gt (len $name) 1 | ternary (last $name) $.Release.Namespace }}
    port: {{ regexFind "[^:]+$" . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
