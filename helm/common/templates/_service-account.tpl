{{/* Its token is mounted only where the pod asks for it. */}}
{{- define "common.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
{{ include "common.metadata" (list . (include "common.serviceAccountName" .) .Values.serviceAccount.annotations) }}
automountServiceAccountToken: false
{{- end }}
{{- end -}}
