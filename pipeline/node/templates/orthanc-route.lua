-- Orthanc: send each CT series to ct-cncl when it is stable, that is, when nothing has come for StableAge seconds.
-- The node knows its own results and ignores them; they are left out here too, so that they do not travel for nothing.
-- Orthanc tries once. What failed (the node was away) is sent again with the next series that is stable, and when Orthanc starts.

function SendAgain()
  for _, id in ipairs(ParseJson(RestApiGet('/jobs'))) do
    local job = ParseJson(RestApiGet('/jobs/' .. id))
    if job.State == 'Failure' and job.Type == 'DicomModalityStore' and job.Content.RemoteAet == 'NODE' then
      RestApiPost('/jobs/' .. id .. '/resubmit', '{}')
    end
  end
end

function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'CT' and metadata['RemoteAET'] ~= 'NODE' then
    SendAgain()
    RestApiPost('/modalities/ct-cncl/store', DumpJson({ Resources = { seriesId }, Asynchronous = true }))
  end
end

function Initialize()
  SendAgain()
end
