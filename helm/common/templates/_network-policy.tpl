{{/*
Parts of a NetworkPolicy. The kubelet's probes come from the node, which a policy lets in always.
*/}}

{{/* Its head: what holds for these pods, both ways. */}}
{{- define "common.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
{{ include "common.metadata" (list . (include "common.fullname" .)) }}
spec:
  podSelector:
    matchLabels:
      {{- include "common.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}

{{/* Who may come to the admin port: nobody, unless it is said. */}}
{{- define "common.adminIngress" -}}
{{- with .Values.networkPolicy.adminFrom -}}
- ports:
    - port: admin
  from:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{/* Name servers, the collector of the traces, and what is said. */}}
{{- define "common.egress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- with .Values.tracing.endpoint }}
{{- $url := urlParse . }}
- ports:
    - port: {{ regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
