{{/*
The Deployment: (list root template). The template of that name gives the chart's own part of the pod, as YAML: `env`,
`ports`, `probes` (what each one asks), `volumeMounts`, `volumes`, `annotations` and `automountServiceAccountToken`.

There is no preStop hook: on SIGTERM the program itself serves on until clients have moved.
*/}}
{{- define "common.deployment" -}}
{{- $pod := include (index . 1) (index . 0) | fromYaml -}}
{{- with $pod.Error }}{{ fail . }}{{ end -}}
{{- with index . 0 -}}
{{- $selectorLabels := include "common.selectorLabels" . -}}
apiVersion: apps/v1
kind: Deployment
{{ include "common.metadata" (list . (include "common.fullname" .)) }}
spec:
  {{- if not .Values.autoscaling.enabled }}
  replicas: {{ .Values.replicas }}
  {{- end }}
  selector:
    matchLabels:
      {{- $selectorLabels | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      # Never fewer than there should be: a new pod is ready before an old one goes.
      maxUnavailable: 0
      maxSurge: 1
  template:
    metadata:
      labels:
        {{- $selectorLabels | nindent 8 }}
        {{- with mergeOverwrite (dict) .Values.commonLabels .Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with mergeOverwrite (dict) .Values.commonAnnotations ($pod.annotations | default dict) .Values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "common.serviceAccountName" . }}
      automountServiceAccountToken: {{ $pod.automountServiceAccountToken | default false }}
      # The variables of every Service of the namespace, which nobody here reads.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ include "common.terminationGracePeriodSeconds" .Values.drain }}
      {{- include "common.podSettings" . | nindent 6 }}
      {{- with .Values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- range . }}
        - labelSelector:
            matchLabels:
              {{- $selectorLabels | nindent 14 }}
          # The pods of one ReplicaSet: those that a rollout replaces do not count.
          matchLabelKeys: [pod-template-hash]
          {{- toYaml . | nindent 10 }}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ .Chart.Name }}
          {{- include "common.containerSettings" . | nindent 10 }}
          {{- with .Values.command }}
          command:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .Values.args }}
          args:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          env:
            {{- $own := concat (include "common.env" . | fromYamlArray) ($pod.env | default list) }}
            {{- include "common.mergedEnv" (list $own .Values.extraEnv) | nindent 12 }}
          ports:
            {{- toYaml $pod.ports | nindent 12 }}
          startupProbe:
            {{- mergeOverwrite (dict) $pod.probes.startup .Values.startupProbe | toYaml | nindent 12 }}
          readinessProbe:
            {{- mergeOverwrite (dict) $pod.probes.readiness .Values.readinessProbe | toYaml | nindent 12 }}
          livenessProbe:
            {{- mergeOverwrite (dict) $pod.probes.liveness .Values.livenessProbe | toYaml | nindent 12 }}
          {{- with .Values.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with concat ($pod.volumeMounts | default list) .Values.extraVolumeMounts }}
          volumeMounts:
            {{- toYaml . | nindent 12 }}
          {{- end }}
      {{- with concat ($pod.volumes | default list) .Values.extraVolumes }}
      volumes:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
{{- end -}}

{{/* Of every pod of the chart, that of `helm test` too. */}}
{{- define "common.podSettings" -}}
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
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Of every container of the chart, that of `helm test` too. */}}
{{- define "common.containerSettings" -}}
image: {{ include "common.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{/* What both programs are told. */}}
{{- define "common.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- with include "common.nodeOptions" . }}
- name: NODE_OPTIONS
  value: {{ quote . }}
{{- end }}
- name: LOG_LEVEL
  value: {{ .Values.log.level }}
- name: LOG_FORMAT
  value: {{ .Values.log.format }}
- name: DRAIN_DELAY
  value: {{ quote .Values.drain.delay }}
- name: DRAIN_GRACE
  value: {{ quote .Values.drain.grace }}
{{- with .Values.tracing }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ quote .endpoint }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ quote .ratio }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ $.Release.Namespace }},k8s.deployment.name={{ include "common.fullname" $ }},k8s.pod.name=$(POD_NAME),service.version={{ $.Values.image.tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Variables, without those that others stand for: (list own others). The API server takes each name once. */}}
{{- define "common.mergedEnv" -}}
{{- $names := list -}}
{{- range index . 1 }}{{ $names = append $names .name }}{{ end -}}
{{- $merged := list -}}
{{- range index . 0 }}{{ if not (has .name $names) }}{{ $merged = append $merged . }}{{ end }}{{ end -}}
{{- concat $merged (index . 1) | toYaml -}}
{{- end -}}
